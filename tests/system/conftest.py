"""The real browser that pages are looked at with."""

import os
import shutil

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    """A browser without a window; a test is skipped where there is none, or fails in CI.

    It ends with its module, since its event loop would run on under other tests.
    """
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        lacking = f"no browser found (looked for {', '.join(BROWSERS)})"
        if os.environ.get("PEDFRAC_REQUIRE_BROWSER") == "1":
            pytest.fail(lacking)
        pytest.skip(lacking)
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
