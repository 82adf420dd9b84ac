"""Trains by pedfrac's own steps, records and packing included, for ``compare.py``.

The entry's options are fields of the configuration, such as ``runtime.compile=on``.
"""

import sys
import time
from pathlib import Path
from unittest import mock

from adapter import Driver

sys.path.insert(0, str(Path(__file__).parents[1]))

from leg_transfer import _held_out

from pedfrac import pipeline
from pedfrac.bundle.bundle import FRACTURE_CLASSES
from pedfrac.compute.devices import resolve_device
from pedfrac.config.loading import load_config
from pedfrac.config.retrain import RetrainConfig
from pedfrac.training import checkpoint, inference, trainer


def main() -> None:
    driver = Driver()
    config = _config(driver)
    records = pipeline.read_records(config)
    cohort = pipeline.select_cohort(config, records)
    split = pipeline.split_patients(config, cohort)
    began = time.perf_counter()
    pack = pipeline.pack_images(config, records, config.fracture.model)
    driver.tell(pack=time.perf_counter() - began)
    prepared = pipeline.Prepared(
        records=records, cohort=cohort, split=split, fracture_pack=pack, age_pack=pack
    )
    fit = driver.timed(trainer._Run._fit)
    with mock.patch.object(trainer._Run, "_fit", lambda run, number: fit(run, number)):
        model = pipeline.fracture_training(config, prepared).run()
    driver.finish(lambda: _scores(config, pack, split, model))


def _config(driver: Driver) -> RetrainConfig:
    job = driver.job
    settings = {
        "data.root": job.layout,
        "artifacts": f"{job.work}/artifacts",
        "cohort.age_bounds": "0,19",
        "cohort.exclude_metal": "false",  # the images are chosen already, the same for all
        "split.file": job.split,
        "fracture.model.backbone": job.backbone,
        "fracture.model.size": job.size,
        "fracture.model.weights": job.weights or "none",
        "fracture.training.epochs": job.epochs,
        "fracture.training.patience": job.epochs,
        "fracture.training.batch_size": job.batch,
        "fracture.training.learning_rate": "1e-3",
        "fracture.training.warmup_epochs": "1",
        "fracture.training.seed": job.seed,
        "runtime.device": job.device,
    } | job.options
    # quoted, since YAML makes a truth value of the bare word on
    return load_config(None, [f'{name}="{value}"' for name, value in settings.items()])


def _scores(config: RetrainConfig, pack: str, split: str, model: str):
    images = _held_out(config, pack, split)
    trained = pipeline.store_of(config).get(model).file
    network = checkpoint.trained_network(config.fracture.model, len(FRACTURE_CLASSES), trained)
    device = resolve_device(config.runtime.device)
    found = inference.predict_probabilities(network.to(device), images, device=device)
    return zip((f"{stem}.png" for stem in images.filestems), found[:, 1], strict=True)


if __name__ == "__main__":
    main()
