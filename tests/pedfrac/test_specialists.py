"""Whole trainings on phantoms where specialists alone can learn, and where they cannot help.

Two kinds of lesion, in wrists that are all drawn at one age. Where their meaning turns round at
an age, the pixels tell a generalist nothing over all ages; where it is one for all, all they tell
is told to the generalist too.
"""

import numpy as np
import pytest
import torch

from pedfrac import pipeline
from pedfrac.bundle.bundle import read_info
from pedfrac.config.phantoms import PhantomConfig
from pedfrac.config.retrain import RetrainConfig
from pedfrac.evaluation.evaluation import load_metrics
from pedfrac.phantoms.dataset import LESION_AGE, write_phantoms

SETTINGS = {
    "results": "",
    "cohort": {"age_bounds": (0, LESION_AGE, 19)},
    "split": {"test_per_year": 1, "validation_fraction": 0.4},
    "fracture": {
        "model": {
            "backbone": "convnextv2_atto",
            "options": {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]},
            "weights": "none",
            "size": 48,
        },
        "training": {
            "epochs": 16,
            "batch_size": 16,
            "learning_rate": 3e-3,
            "warmup_epochs": 1,
            "augment": {"rotation": 5, "noise": 0, "erasing": 0},
        },
    },
    "age": {
        "model": {
            "options": {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 3},
            "weights": "none",
            "size": 48,
        },
        "training": {"epochs": 1},
    },
    "evaluation": {"resamples": 50},
    "runtime": {"device": "cpu", "workers": 1},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Keep torch to one thread: for so small a network more of them mostly wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def learn(folder, lesion):
    """Run all steps up to the test metrics; return what was selected for each group, and these."""
    write_phantoms(folder / "data", PhantomConfig(images=400, scale=0.1, lesion=lesion, workers=1))
    config = RetrainConfig.model_validate(
        SETTINGS | {"data": {"root": str(folder / "data")}, "artifacts": str(folder / "artifacts")}
    )
    records = pipeline.read_records(config)
    cohort = pipeline.select_cohort(config, records)
    pack = pipeline.pack_images(config, records, config.fracture.model)
    split = pipeline.split_patients(config, cohort)
    prepared = pipeline.Prepared(
        records=records, cohort=cohort, split=split, fracture_pack=pack, age_pack=pack
    )
    generalist = pipeline.fracture_training(config, prepared).run()
    trained = pipeline.Trained(
        age=pipeline.age_training(config, prepared).run(),
        generalist=generalist,
        specialists=tuple(
            pipeline.fracture_training(config, prepared, group, generalist).run()
            for group in range(len(config.cohort.ages))
        ),
    )
    bundle = pipeline.assemble_bundle(config, prepared, trained)
    evaluation = pipeline.evaluate_bundle(config, prepared, bundle)
    store = pipeline.store_of(config)
    selected = read_info(store.get(bundle).path).selection
    return selected, load_metrics(store.get(evaluation).path).groups


def areas(groups, model):
    """Return the AUROC of a model on the test images of each age group."""
    return [group.models[model].auroc.value for group in groups[1:]]


# Over four seeds of data, on validation images, turned round: gains of .22 to .61, the specialists'
# AUROC .96 to 1.00, the generalist's mean of both groups .54 to .58; shared: all .99 to 1.00.


def test_what_specialists_alone_can_learn_is_left_to_them(tmp_path):
    selected, tested = learn(tmp_path, "by age")
    assert [one.choice for one in selected] == ["specialist", "specialist"]
    for one in selected:
        assert one.gain.low > 0
        assert "is shown to be better" in one.why
    # what is good for one group is bad for the other, so nothing learnt from pixels helps in both
    common = [one.auroc["generalist"].value for one in selected]
    assert np.mean(common) == pytest.approx(0.5, abs=0.12)
    assert min(areas(tested, "bundle")) > 0.9
    assert np.mean(areas(tested, "generalist")) == pytest.approx(0.5, abs=0.2)


def test_specialists_who_cannot_help_are_not_called_better(tmp_path):
    selected, tested = learn(tmp_path, "shared")
    for one in selected:
        assert one.auroc["generalist"].value > 0.95
        assert one.gain.low <= 0
        assert "shown to be better" not in one.why
        assert one.choice != "specialist" or "not worse by" in one.why
    assert min(areas(tested, "bundle") + areas(tested, "generalist")) > 0.9
