"""What a person sees in Prefect's pages, in a real browser; pictures go to PEDFRAC_SCREENSHOTS."""

import json
import os
import re
from pathlib import Path

import pytest
from platforms import GROUPS

TABLES = {"cohort": "metal", "split": "train images", "metrics": "specialist AUROC"}


@pytest.fixture(scope="module")
def look(browser, stage, tmp_path_factory):
    """Return a function that opens a page, keeps its picture and returns the page."""
    folder = Path(os.environ.get("PEDFRAC_SCREENSHOTS") or tmp_path_factory.mktemp("pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    elsewhere: list[str] = []
    own = f"http://127.0.0.1:{stage.prefect}/"
    page.on(
        "request", lambda r: r.url.startswith((own, "data:", "blob:")) or elsewhere.append(r.url)
    )

    def open_page(path: str, text: str, name: str):
        page.goto(f"{own}{path}")
        page.get_by_text(text).first.wait_for(timeout=300_000)
        page.wait_for_timeout(1500)  # what is drawn late
        page.screenshot(path=folder / f"{name}.png", full_page=True)
        assert elsewhere == []
        return page

    yield open_page
    page.close()


@pytest.fixture(scope="module")
def artifacts(stage, first) -> dict[str, dict]:
    """The latest artifact of each key that the undisturbed retraining and its children left."""
    run, _, runs = first
    wanted = {"flow_run_id": {"any_": [run, *(child["id"] for child in runs)]}}
    found = stage.ask("POST", "/artifacts/filter", {"artifacts": wanted, "sort": "CREATED_DESC"})
    return {one["key"]: one for one in reversed(found) if one["key"]}


def test_the_form_explains_itself(stage, look):
    deployment = stage.ask("GET", "/deployments/name/retrain/retrain")["id"]
    page = look(f"deployments/deployment/{deployment}/run", "Age Bounds", "form")
    for help_text in (
        "Age bounds in years",
        "timm model of the fracture networks",
        "The same sections as in the YAML file of pedfrac retrain",
        "Do nothing where data, configuration and code are those of a finished run",
    ):
        assert page.get_by_text(help_text).count() >= 1, help_text
    assert page.locator("label").count() < 30  # there were 194 fields


def test_a_finished_run_shows_its_children_and_artifacts(stage, look, first):
    run, state, _ = first
    assert state["type"] == "COMPLETED"
    page = look(f"runs/flow-run/{run}", "Completed", "parent-run")
    page.get_by_text("Artifacts", exact=True).first.click()
    page.get_by_text("metrics", exact=True).first.wait_for(timeout=300_000)


@pytest.mark.parametrize("key", TABLES)
def test_tables_show_what_they_hold(look, artifacts, key):
    page = look(f"artifacts/artifact/{artifacts[key]['id']}", TABLES[key], f"table-{key}")
    assert page.locator("table tr").count() > 2


def test_heat_maps_are_shown(look, artifacts):
    keys = [f"heat-maps-{group}" for group in GROUPS]
    assert set(keys) <= set(artifacts)
    page = look(f"artifacts/artifact/{artifacts[keys[0]]['id']}", GROUPS[0], "heat-maps")
    width = page.evaluate("Math.max(...[...document.images].map(image => image.naturalWidth))")
    assert width > 300


def test_progress_and_links_are_shown(look, artifacts):
    progress, results = artifacts["training-generalist"], artifacts["results"]
    assert progress["data"] == 100
    look(f"artifacts/artifact/{progress['id']}", "validation", "progress")
    page = look(f"artifacts/artifact/{results['id']}", "MLflow", "results")
    assert page.get_by_text("s3://pools/first/report").count() >= 1
    assert page.get_by_text("Model card").count() >= 1  # the summary itself


def test_the_report_opens_from_its_link_and_device_hours_are_shown(stage, browser, artifacts):
    link = re.search(r"\((http[^)]+)\)", artifacts["report"]["data"])
    assert link and link[1].endswith("/artifacts/report/report.html")
    page = browser.new_page()
    page.goto(link[1])
    page.frame_locator("iframe").get_by_text("Research use only").first.wait_for(timeout=300_000)
    page.close()
    rows = json.loads(artifacts["device-hours"]["data"])
    assert {"train-generalist", "assess bundle"} <= {row["run"] for row in rows}
    assert all(row["hours on a device"] > 0 for row in rows)
