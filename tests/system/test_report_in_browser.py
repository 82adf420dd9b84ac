"""The report in a real browser, on a desk and on a phone: no errors, nothing cut off or broken.

Not here: what the page says (tests/pedfrac/test_report.py), whose made-up run is opened here.
"""

import runpy
from pathlib import Path

import pytest

from pedfrac.report import write_report

UNIT_TESTS = Path(__file__).parents[1] / "pedfrac" / "test_report.py"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    sample_input = runpy.run_path(str(UNIT_TESTS))["sample_input"]
    write_report(folder / "report.html", sample_input(folder))
    return folder / "report.html"


@pytest.mark.parametrize("width", (1280, 390))
def test_page_is_whole(browser, report, width, tmp_path):
    page = browser.new_page(viewport={"width": width, "height": 900})
    faults, requests = [], []
    page.on("console", lambda message: message.type == "error" and faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("requestfailed", lambda request: faults.append(request.url))
    page.on("request", lambda request: requests.append(request.url.split(":")[0]))
    page.goto(report.as_uri())
    page.locator("summary").click()  # the configuration, too, must fit
    page.wait_for_function("[...document.images].every(image => image.complete)")

    assert faults == [] and set(requests) <= {"file", "data"}
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("[...document.images].filter(i => !i.naturalWidth).map(i => i.alt)") == []
    assert page.evaluate(NARROW_OVERFLOW) == []
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 20_000
    page.close()


# Elements that stick out of the window without a container of their own to scroll in.
NARROW_OVERFLOW = """
[...document.querySelectorAll("main *, header *")]
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
  .filter(e => !e.closest(".scroll, .montage, pre"))
  .map(e => e.outerHTML.slice(0, 80))
"""
