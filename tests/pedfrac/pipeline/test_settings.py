"""A maker reads no setting that is not in its key: watched on a whole small study.

Every section that is alive when a maker begins and that it reads must be in the manifest of what
it makes. Sections that it makes itself come of what it read, or of its parents' files.
"""

import gc
from contextlib import contextmanager

import pytest

from pedfrac import pipeline
from pedfrac.config.base import Section
from pedfrac.config.phantoms import PhantomConfig
from pedfrac.config.retrain import RetrainConfig
from pedfrac.config.runtime import RuntimeConfig
from pedfrac.phantoms.dataset import write_phantoms
from pedfrac.pipeline.keys import Evaluated, Prepared, Trained
from pedfrac.storage.files import content_hash
from pedfrac.storage.store import ArtifactStore

NETWORK = {"weights": "none", "size": 48}
TRAINING = {"epochs": 1, "batch_size": 16}
SMALL = {
    "cohort": {"age_bounds": [0, 10, 19]},
    "split": {"test_per_year": 1, "folds": 2, "validation_fraction": 0.4},
    "fracture": {
        "model": NETWORK
        | {
            "backbone": "convnextv2_atto",
            "options": {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]},
        },
        "training": TRAINING,
    },
    "age": {
        "model": NETWORK
        | {"options": {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 3}},
        "training": TRAINING,
    },
    "evaluation": {"resamples": 20},
    "robustness": {"images": 20},
    "explanation": {"images_per_group": 2, "checked_images": 2},
    "results": "",
}


class Watch:
    """Which sections each kind of maker received and read, and what its key holds."""

    def __init__(self) -> None:
        self.received: dict[int, Section] = {}
        self.fields: set[tuple[int, str]] = set()
        self.faults: dict[str, set[str]] = {}
        self.kinds: list[str] = []
        self.watching = False

    @contextmanager
    def maker(self, kind: str, config: object):
        gc.collect()
        self.received = {id(one): one for one in gc.get_objects() if isinstance(one, Section)}
        self.fields, self.watching = set(), True
        self.kinds.append(kind)
        try:
            yield
        finally:
            self.watching = False
            self._judge(kind, config)

    def _judge(self, kind: str, config: object) -> None:
        held = set(hashes(config))
        for place, field in self.fields:
            section = self.received[place]
            if isinstance(getattr(section, field), Section):
                continue  # on the way to a setting
            leaf = content_hash([field, section.model_dump(mode="json", include={field})[field]])
            whole = content_hash(section.model_dump(mode="json"))
            if whole not in held and leaf not in held:
                self.faults.setdefault(kind, set()).add(f"{type(section).__name__}.{field}")


def hashes(tree):
    """Yield what is in a key: each mapping as a whole, and each of its entries."""
    if isinstance(tree, dict):
        yield content_hash(tree)
        for name, value in tree.items():
            yield content_hash([name, value])
            yield from hashes(value)


@pytest.fixture
def watch(monkeypatch):
    watch, produce, read = Watch(), ArtifactStore.produce, Section.__getattribute__

    def getattribute(self, name):
        known = watch.watching and id(self) in watch.received and name in type(self).model_fields
        if known and not isinstance(self, RuntimeConfig):
            watch.fields.add((id(self), name))
        return read(self, name)

    def watched(self, kind, make, *, config=None, **more):
        def maker(folder):
            with watch.maker(kind, config):
                return make(folder)

        return produce(self, kind, maker, config=config, **more)

    monkeypatch.setattr(ArtifactStore, "produce", watched)
    monkeypatch.setattr(Section, "__getattribute__", getattribute)
    return watch


def study(config: RetrainConfig) -> None:
    """Run every step of a retraining, one after the other."""
    records = pipeline.read_records(config)
    cohort = pipeline.select_cohort(config, records)
    prepared = Prepared(
        records=records,
        cohort=cohort,
        split=pipeline.split_patients(config, cohort),
        fracture_pack=pipeline.pack_images(config, records, config.fracture.model),
        age_pack=pipeline.pack_images(config, records, config.age.model),
    )
    trained = train(config, prepared)
    fold = pipeline.cut_folds(config, prepared)[0]
    of_fold = pipeline.assemble_bundle(config, fold, train(config, fold))
    scores = pipeline.FoldScoring(config, fold, of_fold).run()
    pooled = pipeline.pool_folds(config, [scores])
    bundle = pipeline.assemble_bundle(config, prepared, trained)
    evaluation = pipeline.evaluate_bundle(config, prepared, bundle, pooled)
    evaluated = Evaluated(
        bundle=bundle,
        evaluation=evaluation,
        explanation=pipeline.explain_bundle(config, prepared, bundle, evaluation),
        robustness=pipeline.check_robustness(config, prepared, bundle, evaluation),
    )
    pipeline.write_report(config, prepared, trained, evaluated, {"code version": "1"})


def train(config: RetrainConfig, prepared: Prepared) -> Trained:
    generalist = pipeline.fracture_training(config, prepared).run()
    groups = range(len(config.cohort.ages))
    return Trained(
        age=pipeline.age_training(config, prepared).run(),
        generalist=generalist,
        specialists=tuple(
            pipeline.fracture_training(config, prepared, group, generalist).run()
            for group in groups
        ),
    )


def test_no_maker_reads_what_is_not_in_its_key(watch, tmp_path):
    write_phantoms(tmp_path / "data", PhantomConfig(images=240, scale=0.1, workers=1))
    places = {"data": {"root": str(tmp_path / "data")}, "artifacts": str(tmp_path / "artifacts")}
    study(RetrainConfig.model_validate(SMALL | places))
    made = {"records", "cohort", "split", "pack", "age-model", "fracture-model", "fold-split"}
    made |= {"bundle", "fold-scores", "folds", "evaluation", "explanation", "robustness", "report"}
    assert set(watch.kinds) == made
    # where the images lie, whose content is that of the records; and folds that are held out in
    # turn, which leave the split of the bundle as it is without (SplitConfig.of_the_bundle)
    assert watch.faults == {
        "pack": {"DataConfig.root"},
        "split": {"SplitConfig.folds", "SplitConfig.fold"},
    }


def test_a_setting_that_is_not_in_the_key_is_found(watch, tmp_path):
    config = RetrainConfig.model_validate(SMALL | {"data": {"root": "."}})
    store = ArtifactStore(tmp_path)

    def make(folder):
        (folder / "f").write_text(f"{config.evaluation.resamples} {config.robustness.images}")

    kept = {"robustness": config.robustness.model_dump(mode="json")}
    store.produce("careless", make, config=kept)
    assert watch.faults["careless"] >= {"EvaluationConfig.resamples"}
    assert "RobustnessConfig.images" not in watch.faults["careless"]
