"""Model card: model_card.md, what the networks of a run are, are for and can do (Mitchell 2019).

Made from metrics.json and nothing else; what that does not tell is left to the authors.
"""

from pathlib import Path
from typing import Any

from pedfrac.reporting.statements import environment

TEMPLATE = "model_card.md.j2"


def write_model_card(path: Path, findings: dict[str, Any]) -> None:
    """Write the card of a run from its ``findings`` (metrics.json), in Markdown.

    Sections after Mitchell et al., Model Cards for Model Reporting (FAT* 2019).
    """
    page = environment(findings).get_template(TEMPLATE).render()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page.strip() + "\n", encoding="utf-8")
