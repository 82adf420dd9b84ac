"""The code that a key follows: as declared, as imported, and without what only looks."""

import shutil
from pathlib import Path

import grimp
import pytest

from pedfrac.errors import PedfracError
from pedfrac.pipeline import bundling, evaluation, explanation, folds, monitoring, results
from pedfrac.pipeline import robustness as robustness_step
from pedfrac.promotion import comparison
from pedfrac.serving import prediction
from pedfrac.storage.code_version import PACKAGE, TEMPLATES, code_digest, files_of

# Settings are in a key by their values, artifacts by their contents, and these hold no formula.
EVERYWHERE = {"config", "errors", "storage", "pipeline.keys", "pipeline.maker"}
# What is imported, but decides nothing of what the artifact holds, or is in its key otherwise.
BESIDE: dict[str, set[str]] = {
    # where images are found, how many are read at once, and how rows are written
    "pedfrac.serving.prediction": {
        *("compute", "data", "packs", "statistics"),
        *("serving.image_search", "serving.observer", "serving.prefetch", "serving.score_table"),
    },
    # its page is a record of one window, which a new look does not draw again
    "pedfrac.pipeline.monitoring": {
        *("reporting", "data", "packs", "promotion.audit_log", "promotion.champion_bundle"),
        *("mlflow_runs", "pipeline.bundles"),
    },
    # likewise, and a decision must stay the one that a person was asked about
    "pedfrac.promotion.comparison": {
        *("reporting", "compute", "explanation", "imaging", "mlflow_runs", "models", "packs"),
        *("serving", "data", "bundle"),
    },
    # scored images come by key from the steps before it, which the report only shows
    "pedfrac.pipeline.results": {
        *("compute", "data", "evaluation", "explanation", "imaging", "models", "monitoring"),
        *("packs", "training", "pipeline"),
    },
}
DECLARED = {
    module.__name__: module.CODE
    for module in (
        *(bundling, evaluation, explanation, robustness_step, folds, results, monitoring),
        *(comparison, prediction),
    )
}


@pytest.fixture(scope="module")
def imports():
    return grimp.build_graph("pedfrac", cache_dir=None)


def covers(part: str, module: str) -> bool:
    return module == part or module.startswith(f"{part}.")


@pytest.mark.parametrize("maker", DECLARED)
def test_what_is_declared_is_what_is_imported(maker, imports):
    used = {
        module.removeprefix("pedfrac.")
        for module in imports.find_upstream_modules(maker) | {maker}
        if module != "pedfrac"
    }
    declared = {part for part in DECLARED[maker] if not part.endswith(f".{TEMPLATES}")}
    for module in used:
        known = declared | EVERYWHERE | BESIDE.get(maker, set())
        assert any(covers(part, module) for part in known), f"{maker} imports {module}"
    for part in declared | BESIDE.get(maker, set()):
        assert any(covers(part, module) for module in used), f"{maker} does not import {part}"


@pytest.fixture
def package(tmp_path):
    """A copy of the package's files, to be edited."""
    return Path(shutil.copytree(PACKAGE, tmp_path / "pedfrac"))


def edited(package: Path, name: str) -> set[str]:
    """Return the makers whose code's digest a changed file changes."""
    before = {maker: code_digest(parts, package) for maker, parts in DECLARED.items()}
    with (package / name).open("a") as file:
        file.write("\n")
    return {
        maker.removeprefix("pedfrac.")
        for maker, parts in DECLARED.items()
        if code_digest(parts, package) != before[maker]
    }


@pytest.mark.parametrize("name", ["report.css", "report.js", "report.html.j2", "model_card.md.j2"])
def test_a_template_makes_the_page_anew_and_nothing_else(package, name):
    assert edited(package, f"reporting/templates/{name}") == {"pipeline.results"}


@pytest.mark.parametrize(
    ("name", "makers"),
    [
        ("training/trainer.py", set()),
        ("phantoms/image.py", set()),
        ("serving/service.py", set()),
        ("serving/dicom_output.py", set()),
        (
            "evaluation/robustness.py",
            {f"pipeline.{name}" for name in ("evaluation", "explanation", "folds", "robustness")}
            | {"promotion.comparison"},
        ),
        ("explanation/saliency.py", {"pipeline.explanation"}),
        ("reporting/plots.py", {"pipeline.results"}),
        ("promotion/gate.py", {"promotion.comparison"}),
        (
            "imaging/letterbox.py",
            {
                "pipeline.evaluation",
                "pipeline.folds",
                "pipeline.bundling",
                "pipeline.explanation",
                "pipeline.monitoring",
                "pipeline.robustness",
                "serving.prediction",
            },
        ),
    ],
)
def test_a_module_counts_where_it_is_used(package, name, makers):
    assert edited(package, name) == makers


def test_a_retraining_follows_the_code_of_all_it_leaves(package):
    assert set(results.ALL_CODE) >= {
        part
        for maker, parts in DECLARED.items()
        if maker.startswith("pedfrac.pipeline.") and not maker.endswith("monitoring")
        for part in parts
    }


def test_a_part_that_is_not_there_is_refused():
    with pytest.raises(PedfracError, match="no part colours"):
        code_digest(["colours"])


def test_templates_count_for_those_who_name_them():
    assert not any(file.suffix in (".css", ".j2") for file in files_of("reporting"))
    assert {"report.css"} <= {file.name for file in files_of("reporting.templates")}
