"""What an artifact is made from: equal meaning, equal key; what differs is named."""

import json

import pytest

from pedfrac.errors import PedfracError
from pedfrac.storage.inputs import Inputs
from pedfrac.storage.store import ArtifactStore


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(tmp_path)


def inputs(store, text="pack", **changes) -> Inputs:
    pack = store.produce("pack", lambda folder: (folder / "f").write_text(text), config={"t": text})
    config = {"bounds": [0, 1.5, 5], "training": {"epochs": 30, "rate": 3e-4}}
    return Inputs.of(
        "age-model", config | changes, sources={"weights": "ab12"}, parents={"pack": pack}
    )


def test_the_key_is_that_of_the_store(store):
    own = inputs(store)
    pack = next(store.of_kind("pack"))
    made = store.produce(
        "age-model",
        lambda folder: (folder / "f").write_text("weights"),
        config=own.config,
        sources=own.sources,
        parents={"pack": pack},
    )
    assert made.key == own.key
    assert Inputs.of_manifest(made.manifest) == own


def test_equal_meaning_gives_an_equal_key(store):
    own = inputs(store)
    assert inputs(store, bounds=(0.0, 1.5, 5.0)).key == own.key
    travelled = Inputs.model_validate(json.loads(json.dumps(own.model_dump(mode="json"))))
    assert travelled.key == own.key and not own.differences(travelled)
    travelled.refuse_other(own, "age")


def test_each_difference_is_named_with_both_values(store):
    own = inputs(store)
    other = inputs(store, "another pack", training={"epochs": 20, "rate": 3e-4}, bounds=[0, 19])
    assert own.key != other.key
    said = own.differences(other)
    assert said[:2] == [
        "setting bounds is [0, 1.5, 5] here and [0, 19] there",
        "setting training.epochs is 30 here and 20 there",
    ]
    assert said[2].startswith("parent pack is pack/") and len(said) == 3


def test_what_one_side_lacks_is_named(store):
    own = inputs(store)
    other = own.model_copy(update={"sources": {}})
    assert own.differences(other) == ["source weights is ab12 here and nothing there"]


def test_another_than_the_expected_is_refused_with_what_differs(store):
    own, expected = inputs(store), inputs(store, bounds=[0, 19])
    with pytest.raises(PedfracError) as refused:
        own.refuse_other(expected, "age")
    assert str(refused.value) == (
        f"age: this worker would make {own.key}, but the run that asked for it expects "
        f"{expected.key}: setting bounds is [0, 1.5, 5] here and [0, 19] there"
    )
