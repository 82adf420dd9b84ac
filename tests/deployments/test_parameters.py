"""Parameters of the shipped prefect.yaml, on their way from parent to child: one key on both sides.

The steps before the trainings are run for real; a trained network is stood in for by a file, since
only what it is made from forms a key. Not here: workers and a server (tests/system/platform).
"""

import json
from pathlib import Path

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint

from flows.assessment import assess_bundle
from flows.folds import score_fold
from flows.infrastructure.deployed import as_json
from flows.search import try_training
from flows.training import train_age, train_fracture
from pedfrac import pipeline
from pedfrac.config.phantoms import PhantomConfig
from pedfrac.config.retrain import RetrainConfig
from pedfrac.phantoms.dataset import write_phantoms
from pedfrac.pipeline.assessment import Assessment
from pedfrac.pipeline.keys import Prepared, Trained
from pedfrac.pipeline.search import Attempt

SHIPPED = yaml.safe_load((Path(__file__).parents[2] / "deployments/prefect.yaml").read_text())
DEPLOYMENTS = {one["name"]: one for one in SHIPPED["deployments"]}
OF_RETRAININGS = [
    name for name, one in DEPLOYMENTS.items() if "data" in one["parameters"].get("config", {})
]
# what only an operator can give, and what only a parent can
OPERATORS = {name: {"images": ["images"]} for name in ("predict", "predict-watch")}
OPERATORS |= {"monitor": {"scores": ["scores.parquet"]}}
PARENTS: dict[str, dict] = {
    "try-training": {"model": "age", "search": "rates", "number": 0, "floor": []},
    "score-fold": {"bundle": "bundle/12"},
    "assess-bundle": {"trained": {"age": "a/1", "generalist": "g/1", "specialists": ["s/1"]}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the variables of the file name: a data set and a store."""
    folder = tmp_path_factory.mktemp("deployed")
    write_phantoms(folder / "data", PhantomConfig(images=60, scale=0.1, workers=1))
    return folder


@pytest.fixture
def parameters(folder, monkeypatch):
    """Return the parameters of a deployment as a run gets them from the server."""
    monkeypatch.setenv("PEDFRAC_ARTIFACTS", str(folder / "artifacts"))

    def of(name: str) -> dict:
        filled = json.dumps(DEPLOYMENTS[name]["parameters"])
        filled = filled.replace("{{ $PEDFRAC_DATA }}", str(folder / "data"))
        assert "{{" not in filled
        given = json.loads(filled)
        given["config"] |= OPERATORS.get(name, {})
        if name in PARENTS:
            given["prepared"] = prepare(RetrainConfig.model_validate(given["config"]))
        entrypoint = DEPLOYMENTS[name]["entrypoint"]
        flow = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
        return flow.validate_parameters(given | PARENTS.get(name, {}))

    return of


def prepare(config: RetrainConfig) -> Prepared:
    records = pipeline.read_records(config)
    cohort = pipeline.select_cohort(config, records)
    split = pipeline.split_patients(config, cohort)
    packs = {
        f"{name}_pack": pipeline.pack_images(config, records, getattr(config, name).model)
        for name in ("fracture", "age")
    }
    return Prepared(records=records, cohort=cohort, split=split, **packs)


def stand_in(config, training) -> str:
    own = pipeline.store_of(config).produce(
        training.kind,
        lambda folder: (folder / "model.safetensors").write_bytes(b"weights"),
        config=training.inputs.config,
        parents=training.parents,
    )
    assert own.key == training.key
    return own.key


def at_the_child(flow, given: dict) -> dict:
    """Return a child's parameters as its worker has them."""
    travelled = json.loads(json.dumps(as_json(given)))
    return flow.validate_parameters(travelled)


@pytest.mark.parametrize("name", OF_RETRAININGS)
def test_parent_and_children_agree_on_every_key(name, parameters):
    config = parameters(name)["config"]
    assert isinstance(config, RetrainConfig) and config.runtime.dispatch == "deployments"
    ready = prepare(config)
    given = {"config": config, "prepared": ready, "parent_run": None}

    age = pipeline.age_training(config, ready)
    there = at_the_child(train_age, given | {"expected": age.inputs})
    own = pipeline.age_training(there["config"], there["prepared"])
    assert own.key == there["expected"].key == age.key
    own.inputs.refuse_other(there["expected"], "age")

    start = stand_in(config, pipeline.fracture_training(config, ready))
    for group in (None, *range(len(config.cohort.ages))):
        wanted = pipeline.fracture_training(config, ready, group, start)
        more = {"group": group, "generalist": start, "expected": wanted.inputs}
        there = at_the_child(train_fracture, given | more)
        assert there["expected"] == wanted.inputs
        own = pipeline.fracture_training(
            there["config"], there["prepared"], there["group"], there["generalist"]
        )
        assert own.key == wanted.key

    scoring = pipeline.FoldScoring(config, ready, start)  # any artifact may stand for the bundle
    more = {"bundle": start, "expected": scoring.inputs}
    there = at_the_child(score_fold, {"config": config, "prepared": ready} | more)
    own = pipeline.FoldScoring(there["config"], there["prepared"], there["bundle"])
    assert own.key == there["expected"].key == scoring.key

    trained = Trained(age=start, generalist=start, specialists=(start,))
    assessment = Assessment(config, ready, trained, None)
    more = {"trained": trained, "folds": None, "expected": assessment.inputs}
    there = at_the_child(assess_bundle, {"config": config, "prepared": ready} | more)
    own = Assessment(there["config"], there["prepared"], there["trained"], there["folds"])
    assert own.key == there["expected"].key == assessment.key

    attempt = Attempt(config, ready, "age", "rates", 3)
    more = {"model": "age", "search": "rates", "number": 3, "floor": [], "expected": attempt.inputs}
    there = at_the_child(try_training, {"config": config, "prepared": ready} | more)
    own = Attempt(there["config"], there["prepared"], there["model"], "rates", there["number"])
    assert own.key == there["expected"].key == attempt.key


@pytest.mark.parametrize("name", sorted(DEPLOYMENTS.keys() - set(OF_RETRAININGS)))
def test_other_deployments_read_back_what_they_were_given(name, parameters):
    config = parameters(name)["config"]
    again = type(config).model_validate(json.loads(json.dumps(config.model_dump(mode="json"))))
    assert repr(again) == repr(config)


def test_a_worker_of_other_settings_refuses_before_it_trains(parameters):
    config = parameters("retrain")["config"]
    ready = prepare(config)
    wanted = pipeline.age_training(config, ready).inputs
    fewer = config.age.training.model_copy(update={"epochs": 3})
    other = config.model_copy(update={"age": config.age.model_copy(update={"training": fewer})})
    own = pipeline.age_training(other, ready).inputs
    assert own.differences(wanted) == ["setting training.epochs is 3 here and 30 there"]
