"""The page holds every metric it was given, says why others are missing, and needs nothing else."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from made_findings import make_config, make_findings
from made_pages import add_what_a_run_leaves, draw_montages, each_interval

from pedfrac.reporting.caveats import find_cautions
from pedfrac.reporting.format import called
from pedfrac.reporting.page import write_report

NAMES = ["0-1.5y", "1.5-5y", "5-10y", "10-15y", "15-19y"]
SECTIONS = ["cohort", "split", "results", "choice", "curves", "calibration", "confusion"]
SECTIONS += ["thresholds", "decision", "subgroups", "routing", "pictures", "beyond", "training"]
SECTIONS += ["configuration", "provenance"]


class Page(HTMLParser):
    """Elements and text of a page; refuses tags that are not closed in order."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.words, self.cells = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open[-1:]):
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def values(self):
        """The numbers of all cells, as they sort."""
        return {float(cell["data-v"]) for cell in self.all("td") if cell.get("data-v")}


def written(findings, folder, montages=None):
    write_report(folder / "new" / "report.html", findings, montages or {})
    return (folder / "new" / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def findings():
    config = make_config(evaluation={"abstention": {"rule": "coverage"}, "resamples": 50})
    return add_what_a_run_leaves(make_findings(700, config, disturbed=True))


@pytest.fixture(scope="module")
def montages(tmp_path_factory):
    return draw_montages(tmp_path_factory.mktemp("montages"), NAMES[:4])


@pytest.fixture(scope="module")
def html(findings, montages, tmp_path_factory):
    return written(findings, tmp_path_factory.mktemp("page"), montages)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_first_comes_the_answer_in_words_beside_metadata_alone(findings, page):
    whole = findings["groups"][0]
    area, alone = whole["models"]["bundle"]["auroc"], next(iter(whole["baselines"].values()))
    sentence = f"AUROC of {area['value']:.3f} (95 % interval {area['low']:.3f}–{area['high']:.3f} )"
    assert f"On {whole['images']} test images of {whole['patients']} patients" in page.text
    assert sentence in page.text and f"give {alone['value']:.3f} " in page.text
    first = page.text.index("Patients and images")
    for words in ("Research use only", sentence, "no model in use was given to compare with"):
        assert page.text.index(words) < first
    for name in ("All test images", "No cast", "Initial exam", "No cast, initial exam"):
        assert page.text.index(name) < first


def test_every_area_of_the_head_table_stands_beside_metadata_alone(findings, html):
    head = Page(html[html.index("<table>") : html.index("</table>") + 8])
    rows = [findings["groups"][0], *findings["subsets"][:3]]
    for row in rows:
        areas = [row["models"]["bundle"]["auroc"], *row["baselines"].values()]
        assert {area["value"] for area in areas} <= head.values


# Metrics that are told in other ways: in a sentence, as points of a drawing, or not by age group.
ELSEWHERE = ("age", "curves", "explanation", "folds")


def test_every_interval_is_shown_or_its_reason_told(findings, page):
    shown = {name: part for name, part in findings.items() if name not in ELSEWHERE}
    shown["calibration"] = [
        group if group["name"] == "all" else group | {"before": 0, "after": 0}
        for group in shown["calibration"]["groups"]
    ]
    intervals = list(each_interval(shown))
    assert len(intervals) > 1000
    for one in intervals:
        if one["value"] is None:
            assert one["reason"] in page.text
        else:
            assert one["value"] in page.values


def test_bounds_stand_below_each_value(findings, html):
    area = findings["studies"]["groups"][0]["models"]["bundle"]["specificity"]
    cell = html[html.index(f'<td data-v="{area["value"]}">') :]
    assert f"{area['low']:.2f}–{area['high']:.2f}" in cell[: cell.index("</td>")]


def test_accuracy_of_told_ages_is_told(findings, page):
    for name in ("accuracy", "adjacent"):
        assert f"{100 * findings['age'][name]['value']:.0f} %" in page.text


def test_flow_of_images_tells_each_exclusion_and_part(findings, html):
    flow = Page(html[html.index('<ol class="flow">') : html.index("</ol>") + 5]).text
    for step in findings["cohort"]["steps"]:
        assert f"{step['images']} images of {step['patients']} patients" in flow
    for name, counts in findings["split"]["parts"].items():
        assert f"{counts['images']} images of {counts['patients']} patients" in flow, name
    assert f"Left out: metal {findings['cohort']['steps'][-1]['removed']} images" in flow


def test_page_needs_nothing_else(html, page):
    assert not re.search(r"@import|url\(", html)
    loaded = [a[name] for tag, a in page.elements for name in ("src", "href") if name in a]
    links = [a["href"] for a in page.all("a") if not a["href"].startswith("#")]
    others = [one for one in loaded if one not in links]
    assert all(one.startswith(("data:", "#")) for one in others)
    assert set(links) == set(re.findall(r'href="(https://[^"]+)"', html))
    assert len(html) < 3_000_000


def test_only_the_page_s_own_script_may_run(html):
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert len(scripts) == 1 and f"script-src 'sha256-{digest}'" in html
    assert "default-src 'none'" in html


def test_sections_are_in_order_and_can_be_reached(page):
    assert [a["id"] for a in page.all("section")] == SECTIONS
    reached = {a["href"][1:] for a in page.all("a") if a["href"].startswith("#")}
    assert reached >= set(SECTIONS)
    assert len(page.all("h1")) == 1


def test_metrics_and_montages_are_told_in_words(page):
    images = page.all("img")
    kinds = [image["src"].split(";")[0] for image in images]
    # areas by group and subset, cohort, ROC, PR, reliability, decision, two of subgroups; trainings
    assert kinds.count("data:image/svg+xml") == 9 + 7 and kinds.count("data:image/jpeg") == 4
    assert all(len(image["alt"]) > 20 for image in images)


def test_tables_say_what_they_are(page):
    assert len(page.all("table")) == len(page.all("caption")) > 30
    assert all(a.get("scope") in ("col", "row") for a in page.all("th"))
    regions = [a["aria-label"] for a in page.all("div") if a.get("role") == "region"]
    assert len(regions) == len(set(regions))


@pytest.mark.parametrize(
    "words",
    (
        "fewer than 30 patients: read the interval, not the value",
        "No heat maps for: 15–19 years",
        "not compared",
        "Images left to a reader",
        "Published",
        "Disturbed images",
        "marker region only",
        "Folds held out in turn",
        "zech2023",
    ),
)
def test_words(page, words):
    assert words in page.text


def test_no_band_is_asked_for_in_words(findings, tmp_path):
    operating = findings["operating"]
    none = operating | {"abstention": operating["abstention"] | {"rule": "none"}}
    text = Page(written(findings | {"operating": none}, tmp_path)).text
    assert "no band of doubtful images was asked for" in text
    assert "Images left to a reader" not in text


def test_subgroups_that_differ_are_marked_by_a_symbol_and_in_words(findings, tmp_path):
    planted = json.loads(json.dumps(findings))
    one = next(s for s in planted["subgroups"]["subgroups"] if s["name"] == "lateral")
    metric = one["metrics"]["specificity"]
    metric |= {"differs": True}
    metric["against"] |= {"p_corrected": 0.00004, "others": 0.5}
    html = written(planted, tmp_path)
    text = Page(html).text
    assert "p &lt;0.001 ◆" in html and "◆ specificity" in text
    assert any("lateral" in image["alt"] for image in Page(html).all("img"))
    assert "Differs between subgroups beyond chance: lateral: specificity" in text


def test_order_of_keys_is_of_no_account(findings, montages, html, tmp_path):
    turned = json.loads(json.dumps(findings, sort_keys=True))
    assert written(turned, tmp_path, dict(reversed(montages.items()))) == html


def test_hostile_text_stays_text(findings, tmp_path):
    hostile = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    bad = findings | {
        "title": hostile,
        "config": findings["config"] | {hostile: {"note": hostile}},
        "provenance": {hostile: hostile},
        "subsets": [findings["subsets"][0] | {"name": hostile}],
        "robustness": {hostile: hostile, "note": hostile, "list": [{hostile: hostile}]},
        "published": [{"protocol": hostile, "source": hostile, "url": f"https://{hostile}"}],
    }
    html = written(bad, tmp_path)
    page = Page(html)
    assert html.count("<script") == 1 and not any("onerror" in a for _, a in page.elements)
    assert page.text.count("<script>alert(1)</script>") > 8


def test_links_lead_to_web_pages_only(findings, tmp_path):
    bad = [{"protocol": "p", "source": "s", "url": "javascript:alert(1)"}]
    assert "javascript:" not in written(findings | {"published": bad}, tmp_path)


@pytest.mark.parametrize(
    ("tested", "fractured", "words"),
    (
        (0, None, "The test set holds no image"),
        (1, None, "one patient"),
        (None, True, "only fractured images"),
        (None, False, "no fractured images"),
    ),
)
def test_runs_that_tell_little_say_why(tested, fractured, words, tmp_path):
    findings = make_findings(
        300, make_config(evaluation={"resamples": 20}), fractured, tested=tested
    )
    page = Page(written(findings, tmp_path))
    assert words in page.text
    assert [a["id"] for a in page.all("section")] == SECTIONS
    assert "None" not in page.text.replace("None.", "") and "nan" not in page.text.split()
    for one in each_interval({name: findings[name] for name in ("groups", "subsets", "studies")}):
        assert one["value"] is not None or one["reason"] in page.text
    assert find_cautions(findings, called)


def test_run_without_trainings_pictures_or_provenance(findings, tmp_path):
    bare = {"training": {}, "explanation": {}, "provenance": {}, "published": [], "folds": None}
    bare |= {"robustness": None, "shortcuts": None, "selection": []}
    text = Page(written(findings | bare, tmp_path)).text
    for words in ("No model was trained", "Nothing is recorded", "No choice is recorded"):
        assert words in text
    assert "Not part of this run: metrics on disturbed images" in text


def test_short_histories_and_files_of_a_split_are_shown(findings, tmp_path):
    trainings = {
        name: one | {"history": one["history"][:1]} for name, one in findings["training"].items()
    }
    split = {k: v for k, v in findings["split"].items() if k != "test_intervals"}
    split |= {"source": "file", "file": {"name": "mine.csv"}}
    text = Page(written(findings | {"training": trainings, "split": split}, tmp_path)).text
    assert "as named in mine.csv" in text


@pytest.mark.parametrize(
    ("name", "words"),
    (
        ("1.5-5y", "1.5–5\N{NO-BREAK SPACE}years"),
        ("0-1.5y, girls", "0–1.5\N{NO-BREAK SPACE}years, girls"),
        ("all", "all ages"),
        ("23r-M/2.1", "23r-M/2.1"),
    ),
)
def test_names_are_put_into_words(name, words):
    assert called(name) == words


def test_areas_of_curves_are_read_off_at_specificities(findings, page):
    roc = findings["curves"]["bundle"]["roc"]
    place = int(np.argmin(np.abs(1 - np.array(roc["fpr"]) - 0.9)))
    assert roc["tpr"][place] in page.values
