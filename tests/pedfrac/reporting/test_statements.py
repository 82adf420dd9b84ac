"""Text in Markdown pages: written as on every page, and never mistaken for markup."""

import pytest
from jinja2 import UndefinedError

from pedfrac.reporting.statements import environment

PAGES = environment({"config": {}})


def rendered(template, **values):
    return PAGES.from_string(template).render(**values)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a|b", r"a\|b"),
        ("*a* _b_ `c` [d] <e>", r"\*a\* \_b\_ \`c\` \[d\] \<e>"),
        ("two\nlines", "two lines"),
        ("23r-M/2.1", "23r-M/2.1"),
    ],
)
def test_what_could_be_markup_is_escaped_once_in_names_lists_and_reasons(text, written):
    metric = {"value": None, "low": None, "high": None, "reason": text}
    assert rendered("{{ text | cell }}", text=text) == written
    assert rendered("{{ text | called }}", text=text) == written
    listed = rendered("{{ [text, 'all'] | map('called') | list | listed }}", text=text)
    assert listed == f"{written} and all ages"
    assert rendered("{{ one | interval }}", one=metric) == f"– ({written})"
    assert rendered("{{ one | difference }}", one=metric) == f"– ({written})"


def test_text_can_be_searched_for_with_plain_spaces():
    assert rendered("{{ 2000 | plural('image') }}") == "2,000 images"
    assert rendered("{{ '1.5-5y' | called }}") == "1.5–5 years"
    assert rendered("{{ 0.5 | percent }}, {{ 0.0005 | p_value }}") == r"50 %, \<0.001"


def test_a_name_that_findings_lack_is_an_error():
    with pytest.raises(UndefinedError, match="absent"):
        rendered("{{ f.absent }}")
