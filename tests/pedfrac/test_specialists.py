"""Whole trainings on phantoms where specialists alone can learn, and where they cannot help.

Two kinds of lesion, in wrists that are all drawn at one age. Where their meaning turns round at
an age, the pixels tell a generalist nothing over all ages; where it is one for all, all they tell
is told to the generalist too.
"""

import numpy as np
import pandas as pd
import pytest
import torch

from pedfrac import steps
from pedfrac.config import PhantomConfig, RetrainConfig
from pedfrac.metrics import auroc
from pedfrac.phantoms import LESION_AGE, write_phantoms
from pedfrac.selection import select_model

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
    "age": {"model": {"size": 48}},
    "runtime": {"device": "cpu", "workers": 1},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Keep torch to one thread: for so small a network more of them mostly wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(folder, lesion):
    """Run all steps up to the specialists; return the configuration and the models' keys."""
    write_phantoms(folder / "data", PhantomConfig(images=400, scale=0.1, lesion=lesion, workers=1))
    config = RetrainConfig.model_validate(
        SETTINGS | {"data": {"root": str(folder / "data")}, "artifacts": str(folder / "artifacts")}
    )
    records = steps.read_records(config)
    cohort = steps.select_cohort(config, records)
    pack = steps.pack_films(config, records, config.fracture.model)
    prepared = steps.Prepared(
        records=records,
        cohort=cohort,
        split=steps.split_patients(config, cohort),
        fracture_pack=pack,
        age_pack=pack,
    )
    generalist = steps.fracture_training(config, prepared).run()
    specialists = [
        steps.fracture_training(config, prepared, group, generalist).run()
        for group in range(len(config.cohort.ages))
    ]
    return config, generalist, specialists


def validation(config, model):
    """Return a model's validation films: truth and p_1 by filestem."""
    path = steps.store_of(config).get(model).file("validation.csv")
    return pd.read_csv(path).set_index("filestem").sort_index()


def choices(config, generalist, specialists):
    """Return what is selected for each age group."""
    common, found = validation(config, generalist), []
    for model in specialists:
        own = validation(config, model)
        patients = own.index.str.split("_").str[0]
        shared = common.loc[own.index, "p_1"]
        found.append(select_model(patients, own["truth"], own["p_1"], shared, config.evaluation))
    return found


# Over three seeds of data, turned round: gains of .22 to .59, the specialists' AUROC .96 to 1.00,
# the generalist's mean of both groups .55 to .58; shared: gains of .000 to .011, AUROC .99 to 1.00.


def test_what_specialists_alone_can_learn_is_left_to_them(tmp_path):
    config, *models = trained(tmp_path, "by age")
    found = choices(config, *models)
    assert [one["choice"] for one in found] == ["specialist", "specialist"]
    for one in found:
        assert one["gain"]["low"] > 0
        assert "is shown to be better" in one["why"]
    # what is good for one group is bad for the other, so nothing learnt from pixels helps in both
    both = [one["auroc"]["generalist"]["value"] for one in found]
    assert np.mean(both) == pytest.approx(0.5, abs=0.12)
    films = validation(config, models[0])
    assert auroc(films["truth"], films["p_1"]) == pytest.approx(0.5, abs=0.15)


def test_specialists_who_cannot_help_are_not_called_better(tmp_path):
    config, *models = trained(tmp_path, "shared")
    for one in choices(config, *models):
        assert one["auroc"]["generalist"]["value"] > 0.95
        assert one["gain"]["low"] <= 0
        assert "shown to be better" not in one["why"]
        assert one["choice"] != "specialist" or "not worse by" in one["why"]
