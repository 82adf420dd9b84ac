"""What is kept and what goes, in a folder and on a real S3 server."""

import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from pedfrac.errors import PedfracError
from pedfrac.pipeline.retention import Rules, carry_out, parse_age, plan_removal
from pedfrac.storage import store as store_module
from pedfrac.storage.lineage import Lineage
from pedfrac.storage.store import ArtifactStore

START = datetime(2030, 1, 1, tzinfo=UTC)
MONTH = timedelta(days=30)


class Clock(datetime):
    """A clock that stands at a day of choice."""

    day = START

    @classmethod
    def now(cls, tz=None):
        return cls.day


@pytest.fixture(params=("folder", "s3"))
def root(request, tmp_path):
    return request.getfixturevalue("s3_root") if request.param == "s3" else str(tmp_path / "a")


@pytest.fixture
def store(root, monkeypatch):
    """A store with three retrainings, ten days apart; all share one split."""
    monkeypatch.setattr(store_module, "datetime", Clock)
    monkeypatch.setattr(Clock, "day", START)
    store = ArtifactStore(root)
    for number in range(3):
        retrain(store, number)
        Clock.day += timedelta(days=10)
    return store


def retrain(store, number):
    def write(name, text):
        return lambda folder: (folder / name).write_text(text)

    def made(kind, **parents):
        text = kind if kind == "split" else f"{kind} {number}"
        settings = {} if kind == "split" else {"n": number}
        return store.produce(kind, write("f", text), config=settings, parents=parents)

    split = made("split")
    model = made("model", pack=made("pack"), split=split)
    report = made("report", model=model)
    left = write("retraining.json", json.dumps({"report_key": report.key}))
    store.produce("retraining", left, config={"n": number})


def kinds(manifests):
    return sorted((manifest.kind, manifest.config.get("n")) for manifest in manifests)


def test_a_kept_run_keeps_all_that_it_was_made_from(store):
    now = START + timedelta(days=25)
    plan = plan_removal(store, Rules(runs=1, older_than=timedelta(0)), now)
    gone = [("model", 0), ("model", 1), ("pack", 0), ("pack", 1)]
    gone += [("report", 0), ("report", 1), ("retraining", 0), ("retraining", 1)]
    assert kinds(plan.removed) == gone
    assert len(list(store.of_kind())) == 13  # a plan changes nothing
    carry_out(store, plan)
    left = {artifact.key for artifact in store.of_kind()}
    assert left == set(plan.kept)
    assert all(store.verify(key) == [] and store.get(key) for key in left)
    assert all(store.find(manifest.key) is None for manifest in plan.removed)


def test_what_is_young_or_named_is_kept_with_its_ancestors(store):
    now = START + MONTH
    young = plan_removal(store, Rules(runs=1, older_than=timedelta(days=21)), now)
    assert {number for _, number in kinds(young.removed)} == {0}
    (oldest,) = [a.key for a in store.of_kind("model") if a.manifest.config["n"] == 0]
    named = plan_removal(store, Rules(1, timedelta(0), [oldest[:-2]]), now)
    assert kinds(m for m in named.removed if m.config.get("n") == 0) == [
        ("report", 0),
        ("retraining", 0),
    ]
    with pytest.raises(PedfracError, match="model/zz: no artifact has this key"):
        plan_removal(store, Rules(1, timedelta(0), ["model/zz"]), now)
    with pytest.raises(PedfracError, match="begin so"):
        Lineage.of(store).key("model/")


def test_lineage_tells_every_ancestor(store):
    lineage = Lineage.of(store)
    (newest, *_) = store.of_kind("report")
    assert {key.split("/")[0] for key in lineage.ancestors([newest.key])} == {
        "report",
        "model",
        "pack",
        "split",
    }
    tree = lineage.tree(newest.key)
    assert list(tree["parents"]["model"]["parents"]) == ["pack", "split"]


def test_what_a_lost_writer_left_goes_when_it_is_old(store):
    def lost(folder):
        (folder / "f").write_text("half")
        store.checkpoint(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.produce("model", lost, config={"n": 9}, resumable=True)
    rules, now = Rules(3, timedelta(0)), datetime.now(UTC)
    assert plan_removal(store, rules, now).leftovers == []  # it may be at work still
    plan = plan_removal(store, rules, now + timedelta(days=2))
    assert plan.leftovers and all(".partial/model/" in one.name for one in plan.leftovers)
    carry_out(store, plan)
    assert store.leftovers(now + timedelta(days=2)) == []


def test_on_s3_only_files_of_lost_writers_go(s3_root, s3_server, bucket):
    store, client = ArtifactStore(s3_root), s3_server.client
    made = store.produce("model", lambda folder: (folder / "f").write_text("x"))
    lost = f"some/prefix/{made.key}/files-{uuid.uuid4().hex[:12]}/f"
    foreign = "some/prefix/notes/readme.txt"
    for key in (lost, foreign):
        client.put_object(Bucket=bucket, Key=key, Body=b"1")
    client.create_multipart_upload(Bucket=bucket, Key=lost)
    later = datetime.now(UTC) + timedelta(minutes=1)
    left = store.leftovers(later)
    assert sorted(one.size for one in left) == [0, 1]
    store.remove_leftovers(left)
    assert store.leftovers(later) == [] and store.verify(made.key) == []
    client.head_object(Bucket=bucket, Key=foreign)
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)


def test_ages_and_runs_are_checked():
    assert parse_age("30d") == MONTH and parse_age("12h") == timedelta(hours=12)
    with pytest.raises(PedfracError, match="must look like 30d"):
        parse_age("a month")
    with pytest.raises(PedfracError, match="at least 1 retraining"):
        Rules(0, MONTH)
