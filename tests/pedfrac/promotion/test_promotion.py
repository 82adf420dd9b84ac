import signal

import pytest
from registries import BY, Writer, decision, give_bundles, make_registry, replace_weights, wish
from small_bundles import write_image

from pedfrac.bundle.bundle import bundle_digest
from pedfrac.config.monitoring import MonitorConfig
from pedfrac.config.serving import PredictionConfig
from pedfrac.errors import PedfracError
from pedfrac.pipeline.bundles import bundle_folder
from pedfrac.pipeline.monitoring import monitor_window
from pedfrac.pipeline.prediction import predict_images
from pedfrac.promotion.audit_log import champion_of, found, records_of
from pedfrac.promotion.promotion import note, promote, reconcile, rollback
from pedfrac.storage.files import write_json
from pedfrac.storage.store import ArtifactStore


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def registry(tracking, request):
    return make_registry(tracking, request.node.name.replace("/", "-"), 3)


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(tmp_path / "artifacts")


@pytest.fixture
def bundles(store, registry):
    """The bundle of each version."""
    return give_bundles(store, registry)


def promoted(store, registry, version, champion, **more):
    return promote(
        store,
        registry,
        decision(version, champion),
        wish(version, **more),
        registry.version(version),
    )


def client(registry):
    return registry._client


def test_promotions_are_written_down_and_the_alias_follows(store, registry, bundles):
    assert (
        champion_of(records_of(store, registry.name)) is None and reconcile(store, registry) is None
    )
    first = promoted(store, registry, 3, None)
    assert registry.holder("champion").number == 3
    assert registry.holder("challenger") is None
    second = promoted(store, registry, 1, 3)
    assert [one.number for one in records_of(store, registry.name)] == [1, 2]
    assert (first.champion_before, first.champion_after) == (None, 3)
    assert (second.champion_before, second.champion_after) == (3, 1)
    assert (second.by, second.reason, second.automatic) == (BY, "because", False)
    assert second.artifacts == {"bundle": bundles[1].key}
    assert second.bundle_digest == bundle_digest(bundles[1].path) != first.bundle_digest
    assert registry.holder("champion").number == 1
    assert reconcile(store, registry) is None


def test_asking_again_writes_no_second_line(store, registry, bundles):
    first = promoted(store, registry, 2, None, request="run 7")
    assert promoted(store, registry, 2, None, request="run 7") == first
    assert (
        found(store, registry.name, "run 7") == first
        and found(store, registry.name, "run 8") is None
    )
    assert len(records_of(store, registry.name)) == 1


def test_a_refused_version_is_not_promoted_nor_another_than_was_compared(store, registry):
    with pytest.raises(PedfracError, match="refused by the gate"):
        refused = decision(1, None, passed=False)
        promote(store, registry, refused, wish(1), registry.version(1))
    with pytest.raises(PedfracError, match="of version 1, not of version 2"):
        promote(store, registry, decision(1, None), wish(2), registry.version(2))
    with pytest.raises(PedfracError, match="by must be given"):
        wish(1, by=" ")
    assert records_of(store, registry.name) == []


def test_what_was_compared_with_an_earlier_champion_is_not_promoted(store, registry, bundles):
    promoted(store, registry, 1, None)
    with pytest.raises(
        PedfracError, match=r"no champion, but since then version 1 was promoted by"
    ):
        promoted(store, registry, 2, None)
    assert champion_of(records_of(store, registry.name)) == 1


def test_rejections_refusals_and_expiries_stand_in_the_ledger_and_change_nothing(
    store, registry, bundles
):
    promoted(store, registry, 1, None)
    for event in ("rejection", "refusal", "expiry"):
        note(store, registry, wish(2, event))
    assert [one.event for one in records_of(store, registry.name)][1:] == [
        "rejection",
        "refusal",
        "expiry",
    ]
    assert {
        (one.champion_before, one.champion_after) for one in records_of(store, registry.name)[1:]
    } == {(1, 1)}
    assert registry.holder("champion").number == 1


def test_what_was_approved_does_not_expire(store, registry, bundles):
    approved = promoted(store, registry, 1, None, request="run 1")
    assert note(store, registry, wish(1, "expiry", request="run 1")) == approved


def test_rollback_goes_to_any_earlier_champion_with_its_reason(store, registry, bundles):
    for version, champion in ((1, None), (2, 1), (3, 2)):
        promoted(store, registry, version, champion)
    with pytest.raises(PedfracError, match="is the champion already"):
        rollback(store, registry, wish(3, "rollback"))
    record = rollback(store, registry, wish(1, "rollback"))
    assert (record.champion_before, record.champion_after) == (3, 1)
    assert registry.holder("champion").number == 1
    assert rollback(store, registry, wish(2, "rollback")).champion_before == 1
    store.remove(bundles[3].manifest)
    with pytest.raises(PedfracError, match=rf"bundle {bundles[3].key} is gone from the store"):
        rollback(store, registry, wish(3, "rollback", request="again"))


def test_rollback_to_what_was_never_champion_is_refused(store, registry):
    with pytest.raises(PedfracError, match="version 1 was no champion; earlier ones: there was"):
        rollback(store, registry, wish(1, "rollback"))


def test_an_alias_that_something_else_moved_is_noticed_and_can_be_set_back(
    store, registry, bundles, tmp_path
):
    promoted(store, registry, 1, None)
    client(registry).set_registered_model_alias(registry.name, "champion", "2")
    assert "version 2 holds the alias champion, but by record 1" in reconcile(store, registry)
    with pytest.raises(PedfracError, match="pedfrac rollback --to 1"):
        promoted(store, registry, 3, 1)
    assert rollback(store, registry, wish(1, "rollback")).champion_after == 1
    assert reconcile(store, registry) is None
    assert registry.holder("champion").number == 1


def test_a_champion_that_was_deleted_is_noticed(store, registry, bundles):
    promoted(store, registry, 1, None)
    promoted(store, registry, 2, 1)
    client(registry).delete_model_version(registry.name, "2")
    assert "version 2 is gone from the registry" in reconcile(store, registry)
    assert rollback(store, registry, wish(1, "rollback")).champion_after == 1
    assert reconcile(store, registry) is None


def test_a_champion_that_no_promotion_made_is_noticed(store, registry):
    client(registry).set_registered_model_alias(registry.name, "champion", "2")
    assert "no promotion says so" in reconcile(store, registry)


def test_a_changed_or_missing_record_is_noticed(store, registry, bundles, tmp_path):
    for version, champion in ((1, None), (2, 1), (3, 2)):
        promoted(store, registry, version, champion)
    artifacts = {one.read_json("record.json")["number"]: one for one in store.of_kind("promotion")}
    file = artifacts[3].path / "record.json"
    text = file.read_text()
    file.write_text(text.replace(BY, "Eve Adams"))
    with pytest.raises(PedfracError, match=r"no verified artifact here, \['record.json'\] changed"):
        records_of(store, registry.name)
    file.write_text(text)
    store.remove(artifacts[2].manifest)
    with pytest.raises(PedfracError, match="ledger of promotions is broken"):
        records_of(store, registry.name)


@pytest.mark.parametrize("kept", ["folder", "s3"])
def test_of_two_promotions_at_once_one_wins_and_the_other_says_who(
    kept, registry, tmp_path, request
):
    root = request.getfixturevalue("s3_root") if kept == "s3" else tmp_path / "artifacts"
    give_bundles(ArtifactStore(root), registry)
    writers = {number: Writer(root, registry, number) for number in (1, 2)}
    for writer in writers.values():
        writer.go()
    told = {number: writer.ended()[1] for number, writer in writers.items()}
    winner, loser = sorted(told, key=told.__getitem__)
    assert told[winner] == ""
    assert f"since then version {winner} was promoted by writer {winner}" in told[loser]
    (record,) = records_of(ArtifactStore(root), registry.name)
    assert record.version == winner == registry.holder("champion").number


@pytest.mark.parametrize(("how", "lines"), [("store", 0), ("alias", 1), ("tag", 1)])
def test_a_promotion_that_is_killed_is_whole_or_was_not(how, lines, registry, tmp_path):
    root = tmp_path / "artifacts"
    give_bundles(ArtifactStore(root), registry)
    killed = Writer(root, registry, 1, how)
    killed.go()
    assert killed.ended()[0] == -signal.SIGKILL
    store = ArtifactStore(root)
    assert len(records_of(store, registry.name)) == lines
    held = registry.holder("champion")
    assert (held is not None) == (how == "tag")
    assert reconcile(store, registry) is None
    assert (registry.holder("champion") is not None) == bool(lines)
    if lines:  # and now it is settled: whoever moves the alias is found out
        client(registry).delete_registered_model_alias(registry.name, "champion")
        assert "no version holds the alias champion" in reconcile(store, registry)
    else:
        assert promoted(store, registry, 1, None).champion_after == 1


def test_the_champion_is_what_images_are_scored_by(store, registry, bundles, tmp_path):
    named = f"champion/{registry.name}"
    with pytest.raises(PedfracError, match="has no champion yet"):
        bundle_folder(named, str(tmp_path / "artifacts"))
    promoted(store, registry, 2, None)
    assert bundle_folder(named, str(tmp_path / "artifacts")) == bundles[2].path


@pytest.fixture
def replaced(store, registry, bundles):
    """The bundle of a champion, version 1, that somebody replaced without a trace of its own."""
    promoted(store, registry, 1, None)
    replace_weights(bundles[1])
    assert bundle_digest(store.get(bundles[1].key).path)  # what lies in the folder fits together
    return bundles[1]


USES = {
    "predict": lambda bundle, root, images: predict_images(
        PredictionConfig(images=(images,), bundle=bundle, artifacts=root)
    ),
    "monitor": lambda bundle, root, images: monitor_window(
        MonitorConfig(scores=(images,), bundle=bundle, artifacts=root)
    ),
}


@pytest.mark.parametrize("use", USES)
def test_a_champion_with_other_files_than_were_promoted_is_refused(
    use, replaced, registry, tmp_path
):
    image = write_image(tmp_path / "image.png")
    told = rf"{replaced.path}: is not the bundle that became champion: version 1 was promoted with"
    with pytest.raises(PedfracError, match=told):
        USES[use](f"champion/{registry.name}", str(tmp_path / "artifacts"), str(image))


def test_no_rollback_to_a_bundle_with_other_files_than_were_promoted(replaced, store, registry):
    promoted(store, registry, 2, 1)
    with pytest.raises(PedfracError, match="is not the bundle that became champion: version 1 was"):
        rollback(store, registry, wish(1, "rollback"))
    assert champion_of(records_of(store, registry.name)) == 2


def test_a_rollback_pins_what_it_brings_back(store, registry, bundles, tmp_path):
    first = promoted(store, registry, 1, None)
    promoted(store, registry, 2, 1)
    back = rollback(store, registry, wish(1, "rollback"))
    assert back.bundle_digest == first.bundle_digest == bundle_digest(bundles[1].path)
    replace_weights(bundles[1])
    with pytest.raises(PedfracError, match="version 1 was brought back with the digest"):
        bundle_folder(f"champion/{registry.name}", str(tmp_path / "artifacts"))


def test_records_of_before_digests_were_kept_stay_valid(store, registry, bundles, tmp_path):
    promoted(store, registry, 1, None)
    (record,) = store.of_kind("promotion")
    content = record.read_json("record.json")
    del content["bundle_digest"]
    store.remove(record.manifest)
    config = record.manifest.config
    store.produce("promotion", lambda f: write_json(f / "record.json", content), config=config)
    (old,) = records_of(store, registry.name)
    assert old.bundle_digest is None
    named = f"champion/{registry.name}"
    assert bundle_folder(named, str(tmp_path / "artifacts")) == bundles[1].path
    promoted(store, registry, 2, 1)
    assert rollback(store, registry, wish(1, "rollback")).bundle_digest == bundle_digest(
        bundles[1].path
    )
