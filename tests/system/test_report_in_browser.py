"""The report in a real browser, on a desk, on a phone and on paper: nothing cut off or broken.

Not here: what the page says (tests/pedfrac/test_report.py).
"""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from made_findings import make_config, make_findings
from made_pages import add_what_a_run_leaves, draw_montages

from pedfrac.reporting.page import write_report

PAPER = 703  # CSS pixels between the margins of an A4 page
MOST_BYTES = 10_000_000


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    config = make_config(
        split={"test_per_year": 4},
        evaluation={"abstention": {"rule": "coverage"}, "resamples": 100},
    )
    findings = add_what_a_run_leaves(make_findings(1200, config, disturbed=True))
    names = config.cohort.ages.names
    write_report(folder / "report.html", findings, draw_montages(folder, names))
    return folder / "report.html"


@pytest.fixture
def visit(browser, report):
    """Open the page in a window of so many pixels; faults it meets are kept in ``faults``."""
    pages = []

    def visit(width, **options):
        page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        page.faults, page.asked = [], []
        page.on("console", lambda message: page.faults.append(message.text))
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("requestfailed", lambda request: page.faults.append(request.url))
        page.on("request", lambda request: page.asked.append(request.url.split(":")[0]))
        page.goto(report.as_uri())
        pages.append(page)
        return page

    yield visit
    for page in pages:
        page.close()


def open_all(page):
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    page.wait_for_function("[...document.images].every(image => image.complete)")


@pytest.mark.parametrize("width", (1280, 390))
def test_page_is_whole(visit, report, width, tmp_path):
    page = visit(width)
    open_all(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("[...document.images].filter(i => !i.naturalWidth).map(i => i.alt)") == []
    assert page.evaluate(OVERFLOW, [width, ".scroll, .montage"]) == []
    assert page.evaluate(COVERED) == []
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 20_000
    assert page.faults == [] and set(page.asked) <= {"file", "data"}
    assert report.stat().st_size < MOST_BYTES


@pytest.mark.parametrize("width", (1280, 390))
def test_page_can_be_used_by_all(visit, width):
    page = visit(width)
    open_all(page)
    found = Axe().run(page).response["violations"]
    assert [(one["impact"], one["id"], one["nodes"][0]["html"]) for one in found] == []


def test_answer_is_on_the_first_screen(visit):
    page = visit(1280)
    words = page.locator("header .lead").bounding_box()
    table = page.locator("header table").first.bounding_box()
    assert words["y"] + words["height"] < table["y"] + table["height"] < 900


def test_tables_fit_a_desk(visit):
    page = visit(1280)
    wide = page.evaluate(
        """[...document.querySelectorAll("#results > .table .scroll, header .scroll")]
        .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.ariaLabel)"""
    )
    assert wide == []


def test_paper_holds_all_of_it(visit, tmp_path):
    page = visit(PAPER)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("[...document.querySelectorAll('details')].every(one => one.open)")
    assert page.evaluate(OVERFLOW, [PAPER, "none"]) == []
    assert not page.locator("nav").is_visible() and not page.locator(".copy").first.is_visible()
    content = page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    assert content.startswith(b"%PDF") and len(content) < MOST_BYTES
    assert 10 < len(re.findall(rb"/Type\s*/Page\b", content)) < 60
    assert page.faults == []


def test_a_click_on_a_heading_sorts_and_another_turns_it_round(visit):
    page = visit(1280)
    heading = page.locator("header th", has_text="AUROC").first
    areas = f"header tbody tr > :nth-child({1 + heading.evaluate('e => e.cellIndex')})"
    values = "cells => cells.map(cell => Number(cell.dataset.v))"
    heading.locator("button").click()
    rising = page.locator(areas).evaluate_all(values)
    assert heading.get_attribute("aria-sort") == "ascending" and rising == sorted(rising)
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert page.locator(areas).evaluate_all(values) == rising[::-1]
    assert len(set(rising)) > 1


def test_what_is_missing_is_sorted_last(visit):
    page = visit(1280)
    frame = page.locator("#subgroups .table").first
    column = frame.locator("th", has_text="AUROC")
    for _ in range(2):
        column.locator("button").click()
        at = column.evaluate("e => e.cellIndex")
        cells = frame.locator(f"tbody tr > :nth-child({at + 1})")
        kinds = cells.evaluate_all("cells => cells.map(cell => cell.dataset.v !== '')")
        assert kinds == sorted(kinds, reverse=True) and not all(kinds)


def test_a_table_is_copied_as_rows_of_a_spreadsheet(visit):
    page = visit(1280, permissions=["clipboard-read", "clipboard-write"])
    page.locator("header .copy").click()
    page.locator("header .copy", has_text="Copied").wait_for()
    rows = page.evaluate("navigator.clipboard.readText()").split("\n")
    assert [row.split("\t")[0] for row in rows[:3]] == ["Images of", "All test images", "No cast"]
    assert len({len(row.split("\t")) for row in rows}) == 1
    assert re.fullmatch(r"0\.\d{3} \(0\.\d{3}–[01]\.\d{3}\)", rows[1].split("\t")[4])


def test_page_is_whole_without_its_script(visit):
    with_script, without = visit(1280), visit(1280, java_script_enabled=False)
    assert without.locator("button").count() == 0 < with_script.locator("button").count()
    for kind in ("table", "img", "section", "tbody tr"):
        assert without.locator(kind).count() == with_script.locator(kind).count() > 0


# Elements that stick out of a width, but for those within containers that scroll.
OVERFLOW = """
([width, scrolling]) => [...document.querySelectorAll("main *, header *, footer")]
  .filter(e => e.getBoundingClientRect().right > width + 1)
  .filter(e => !e.closest(scrolling) && e.checkVisibility())
  .map(e => e.outerHTML.slice(0, 120))
"""

# Buttons that lie on the words of a caption.
COVERED = """
[...document.querySelectorAll(".copy")].filter(button => {
  const range = document.createRange();
  range.selectNodeContents(button.parentElement.querySelector("caption"));
  const box = button.getBoundingClientRect();
  return [...range.getClientRects()].some(words => words.right > box.left + 1
    && words.left < box.right - 1 && words.bottom > box.top + 1 && words.top < box.bottom - 1);
}).map(button => button.ariaLabel)
"""
