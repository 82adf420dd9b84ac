"""The page holds what it was given, says why something is missing, and needs nothing else."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from pedfrac.config import RetrainConfig
from pedfrac.errors import PedfracError
from pedfrac.report import MONTAGE_BYTES, ReportInput, write_report

NAMES = ["0-1.5y", "1.5-5y", "5-10y", "10-15y", "15-19y"]
FILMS = [123, 1151, 6109, 9655, 2581]
FRACTURED = [89, 818, 4939, 6051, 1060]
GROUPS = list(zip(NAMES, FILMS, FRACTURED, strict=True))


# ---- a made-up run; the browser test opens it as well -------------------------------------------


def interval(value, width=0.05):
    return {"value": value, "low": max(value - width, 0), "high": min(value + width, 1)}


def missing(reason):
    return {"value": None, "low": None, "high": None, "reason": reason}


def model_figures(auroc, tests, threshold=0.5, width=0.05):
    right = round(tests / 2 * auroc)
    figures = {
        name: interval(auroc - less, width)
        for name, less in (("sensitivity", 0.05), ("specificity", 0.08), ("accuracy", 0.06))
    }
    return figures | {
        "threshold": threshold,
        "auroc": interval(auroc, width),
        "average_precision": interval(auroc - 0.01, width),
        "f1": interval(auroc - 0.06, width),
        "confusion": [[right, tests // 2 - right], [tests // 2 - right, right]],
    }


def group_figures(group, name, tests, auroc, width=0.05):
    models = {
        "specialist": model_figures(auroc, tests, None if group == -1 else 0.41, width),
        "generalist": model_figures(auroc - 0.013, tests, 0.46, width),
        "specialist by seen age": model_figures(auroc - 0.02, tests, None, width),
    }
    counts = {"images": tests, "patients": tests, "fractured": tests // 2}
    return {"group": group, "name": name, **counts, "models": models}


def one_class_group():
    """A group whose few test films are all fractured: most figures do not exist."""
    group = group_figures(0, NAMES[0], 8, 0.9, 0.2) | {"fractured": 8}
    for figures in group["models"].values():
        figures["auroc"] = missing("test films of one class only")
        figures["specificity"] = missing("no normal test film")
        figures["confusion"] = [[0, 0], [1, 7]]
    return group


def empty_group():
    nothing = dict.fromkeys(
        ("auroc", "average_precision", "sensitivity", "specificity", "accuracy", "f1"),
        missing("no test film"),
    )
    figures = nothing | {"threshold": None, "confusion": [[0, 0], [0, 0]]}
    group = group_figures(4, NAMES[4], 0, 0.9)
    return group | {"models": dict.fromkeys(group["models"], figures)}


def evaluation():
    middle = [
        group_figures(group, NAMES[group], tests, auroc)
        for group, tests, auroc in ((1, 70, 0.912), (2, 100, 0.948), (3, 100, 0.931))
    ]
    whole = group_figures(-1, "all", 278, 0.936, 0.027)
    names = ("no cast", "initial exam", "no cast, initial exam", "cast")
    subsets = [
        {key: value for key, value in group_figures(0, name, 90, 0.92).items() if key != "group"}
        for name in names
    ]
    subsets[3]["models"]["specialist"]["auroc"] = missing("no normal test film")
    steps = np.linspace(0, 1, 60)
    return {
        "groups": [whole, one_class_group(), *middle, empty_group()],
        "subsets": subsets,
        "age": {
            "accuracy": interval(0.81),
            "adjacent": interval(0.97, 0.02),
            "f1": interval(0.78),
            "confusion": (np.eye(5, dtype=int) * 40 + np.eye(5, k=1, dtype=int) * 7).tolist(),
            "names": NAMES,
        },
        "baselines": {
            "age, sex, projection, side": interval(0.698, 0.03),
            "with cast, initial exam, osteopenia": interval(0.862, 0.025),
        },
        "roc": {
            "specialist": {"fpr": steps.tolist(), "tpr": (steps**0.09).tolist()},
            "generalist": {"fpr": steps.tolist(), "tpr": (steps**0.13).tolist()},
        },
    }


def counts(images, fractured):
    patients = round(images * 0.4)
    normal = images - fractured
    return {"images": images, "patients": patients, "fractured": fractured, "normal": normal}


def cohort():
    return {
        "steps": [
            {"step": "usable records", "removed": 0, **counts(20327, 13550)},
            {"step": "age within bounds", "removed": 0, **counts(20327, 13550)},
            {"step": "without metal", "removed": 708, **counts(19619, 12957)},
        ],
        "groups": [
            {"group": group, "name": name, "from": 0.0, "to": 1.5}
            | {"before": counts(films + 5, fractured), "after": counts(films, fractured)}
            for group, (name, films, fractured) in enumerate(GROUPS)
        ],
    }


def split():
    def parts(films, fractured):
        shares = {"train": 0.75, "validation": 0.12, "test": 0.02, "left_out": 0.11}
        return {
            part: counts(round(films * share), round(fractured * share))
            for part, share in shares.items()
        }

    short = {"pairs_wanted": 10, "pairs": 4, "fractured": 4, "normal": 4}
    free = {"available_fractured_patients": 31, "available_normal_patients": 4}
    return {
        "source": "rule",
        "previous": None,
        "test_intervals": {
            "pairs_wanted": 10,
            "unfilled": [{"from": year, "to": year + 1, **short, **free} for year in (0, 18)],
        },
        "parts": parts(19619, 12957),
        "groups": [
            {"group": group, "name": name, **parts(films, fractured)}
            for group, (name, films, fractured) in enumerate(GROUPS)
        ],
        "left_out": {"patient is in the test set": 802},
        "folds": [],
        "disjoint": {
            "patients": {"train": 4873, "validation": 890, "test": 284},
            "shared": {"train-validation": 0, "train-test": 0, "validation-test": 0},
        },
    }


def history(epochs=24, best=17, auroc=True):
    def part(epoch, gap):
        reached = 1 - 0.4 * np.exp(-epoch / 6) - gap
        figures = {"loss": 0.7 * np.exp(-epoch / 8) + gap, "accuracy": reached, "f1": reached}
        return figures | {"auroc": reached if auroc else None}

    return [
        {
            "epoch": epoch,
            "learning_rate": 3e-4,
            "training": part(epoch, 0.01),
            "validation": part(epoch, 0.05 + 0.002 * max(epoch - best, 0)),
            "best": epoch == best,
        }
        for epoch in range(1, epochs + 1)
    ]


def summary(monitor="auroc", figure=0.93):
    part = {"images": 14714, "patients": 4873, "classes": [5000, 9714]}
    less = {"images": 2400, "patients": 890, "classes": [800, 1600]}
    epochs = {"best_epoch": 17, "epochs": 24, "monitor": monitor, "figure": figure}
    return epochs | {"train": part, "validation": less}


def montage(path, columns=4, rows=2, side=224):
    """Write bright bones on black with a warm heat spot and a box, film beside heat map."""
    picture = np.zeros((rows * side, columns * 2 * side, 3), np.uint8)
    for row in range(rows):
        for column in range(columns * 2):
            x, y = column * side, row * side
            for bone in (80, 140):
                tip = (x + bone + 8 * row, y + side)
                cv2.line(picture, (x + bone, y), tip, (170, 170, 170), 30)
            if column % 2:
                cv2.circle(picture, (x + 90, y + 110), 34, (40, 110, 240), -1)
            cv2.rectangle(picture, (x + 60, y + 80), (x + 120, y + 150), (0, 220, 255), 2)
    cv2.imwrite(str(path), picture)
    return path


def sample_input(folder: Path) -> ReportInput:
    """A run of five age groups: the youngest tested on one class only, the oldest on no film."""
    kept = NAMES[:4]
    config = RetrainConfig.model_validate({"data": {"root": "/data/grazpedwri"}})
    explained = {"films": 24, "with_boxes": 21, "method": "gradcam", "chance": 0.062}
    heat = {"pointing": interval(0.81, 0.1), "mass": interval(0.44, 0.07)}
    no_box = missing("no film with a fracture box")
    nothing = {"with_boxes": 0, "pointing": no_box, "mass": no_box, "chance": None}
    models = ["age", "generalist", *kept]
    return ReportInput(
        title="Paediatric wrist fractures: retraining of November 2026",
        cohort=cohort(),
        records={
            **{"rows": 20330, "usable": 20327, "dropped": 3, "patients": 6091, "studies": 10699},
            **{"fractured": 13550, "normal": 6777, "metal": 708, "boxes": {"fracture": 18090}},
            "issues": {"image-truncated": 2, "filestem-mismatch": 1},
        },
        split=split(),
        histories={name: history(auroc=name != "age") for name in models},
        summaries={
            name: summary("f1", 0.78) if name == "age" else summary(figure=0.94) for name in models
        }
        | {NAMES[0]: summary(figure=None)},
        figures=evaluation(),
        explanations=dict.fromkeys(kept, explained | heat) | {NAMES[0]: explained | nothing},
        montages={name: montage(folder / f"{name}.png") for name in kept},
        config=config.model_dump(mode="json"),
        provenance={
            "run": "2026-11-23T10:55Z-wooden-heron",
            "code version": "0.1.0+5efb1fc",
            "data fingerprint": "b1946ac92492d2347c6235b4d2611184" * 2,
            "MLflow run": None,
        },
    )


# ---- the page -----------------------------------------------------------------------------------


class Page(HTMLParser):
    """Elements and text of a page; refuses tags that are not closed in order."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
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
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return sample_input(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def html(content, tmp_path_factory):
    return written(content, tmp_path_factory.mktemp("page"))


def written(content, folder):
    write_report(folder / "new" / "report.html", content)
    return (folder / "new" / "report.html").read_text(encoding="utf-8")


def test_headline_tells_the_main_result_beside_the_baseline(html):
    text = Page(html).text
    assert "On 278 test films of 278 patients" in text
    assert "AUROC of 0.936 (95 % interval 0.909–0.963); without any pixels" in text
    assert "side alone give 0.698 (95 % interval 0.668–0.728)" in text
    assert text.index("Research use only, not a medical device") < text.index("On 278")


def test_page_needs_nothing_else(html):
    page = Page(html)
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", html)
    assert not page.all("script")
    sources = [a.get("src") or a.get("href") for _, a in page.elements]
    assert all(source.startswith(("data:", "#")) for source in sources if source)
    assert len(html) < 3_000_000


def test_every_section_is_there_in_order_and_can_be_reached(html):
    page = Page(html)
    ids = [a["id"] for a in page.all("section")]
    assert ids[:3] == ["results", "subsets", "roc"]
    assert [f"#{id}" for id in ids] == [a["href"] for a in page.all("a")]
    assert len(page.all("h1")) == 1 and len(page.all("h2")) == len(ids)


def test_figures_and_montages_are_shown_with_words(html):
    images = Page(html).all("img")
    kinds = [image["src"].split(";")[0] for image in images]
    # Groups, subsets, ROC, cohort, six training curves; four montages.
    assert kinds.count("data:image/svg+xml") == 10 and kinds.count("data:image/jpeg") == 4
    assert all(image["alt"] for image in images)


def test_tables_say_what_they_are(html):
    page = Page(html)
    tables = len(page.all("table"))
    assert tables == len(page.all("caption")) and tables > 10
    assert all(a.get("scope") in ("col", "row", "rowgroup") for a in page.all("th"))


@pytest.mark.parametrize(
    "words",
    (
        "test films of one class only",
        "fewer than 30 patients",
        "No test film or no specialist for: 15–19 years",
        "No specialist was trained for: 15–19 years",
        "No heat maps for: 15–19 years",
        "no film with a fracture box",
    ),
)
def test_what_is_missing_is_named_with_its_reason(html, words):
    assert words in Page(html).text


def test_hostile_text_stays_text(content, tmp_path):
    hostile = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    figures = content.figures | {
        "baselines": {hostile: missing(hostile)},
        "subsets": [one | {"name": hostile} for one in content.figures["subsets"][:1]],
    }
    bad = replace(
        content,
        title=hostile,
        config=content.config | {hostile: {"note": hostile}},
        provenance={hostile: hostile},
        figures=figures,
    )
    html = written(bad, tmp_path)
    page = Page(html)
    assert "<script" not in html and not any("onerror" in a for _, a in page.elements)
    assert page.text.count("<script>alert(1)</script>") > 5


def test_equal_input_gives_equal_bytes(content, html, tmp_path):
    assert written(content, tmp_path) == html


def test_run_without_anything_to_show_still_gives_a_page_without_empty_panels(content, tmp_path):
    nothing = group_figures(-1, "all", 0, 0.5) | {"models": {}}
    figures = {"groups": [nothing], "subsets": [], "age": {}, "baselines": {}, "roc": {}}
    steps = [{"step": "usable records", "removed": 0, **counts(0, 0)}]
    bare = replace(
        content,
        cohort={"steps": steps, "groups": []},
        histories={"age": []},
        summaries={},
        figures=figures,
        explanations={},
        montages={},
        provenance={},
    )
    page = Page(written(bare, tmp_path))
    assert "The test set holds no film" in page.text and not page.all("img")


def test_short_histories_point_values_and_files_of_a_split_are_shown(content, tmp_path):
    point = {"value": 0.9, "low": None, "high": None}
    figures = content.figures | {"baselines": {"age": point}}
    named = {"train": 9, "validation": 3, "test": 3}
    file = {"name": "mine.csv", "films": named, "films_in_cohort": named}
    by_file = {key: value for key, value in content.split.items() if key != "test_intervals"}
    by_file |= {"source": "file", "file": file | {"films_not_in_cohort": 0, "cohort_not_named": 4}}
    one = replace(content, histories={"age": history(1, 1, False)}, figures=figures, split=by_file)
    text = Page(written(one, tmp_path)).text
    assert "as named in mine.csv" in text and "age alone give 0.900 ." in text


def test_large_montages_are_made_to_fit(content, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (3000, 3000, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "noise.png"), noise)
    html = written(replace(content, montages={"5-10y": tmp_path / "noise.png"}), tmp_path)
    assert len(html) < MONTAGE_BYTES * 4 / 3 + 1_000_000


def test_montage_that_is_no_picture_is_named(content, tmp_path):
    (tmp_path / "montage.png").write_text("nothing")
    with pytest.raises(PedfracError, match=r"montage\.png: cannot be read as an image"):
        write_report(
            tmp_path / "r.html", replace(content, montages={"x": tmp_path / "montage.png"})
        )
