"""All steps of a retraining one after another, without Prefect and MLflow: how long each takes.

It needs no server, so it runs where only the repository is. At full size, on a GPU (20,327 phantoms
of real size are drawn first, which is not counted; networks are those of the default):
``python benchmarks/bare_retraining.py --images 20327 --set fracture.model.weights=none
--set age.model.weights=none --set fracture.training.epochs=20 --set age.training.epochs=20
--set fracture.training.patience=20 --set age.training.patience=20``
"""

import argparse
import json
import os
import tempfile
import time
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from pedfrac.config.loading import load_config

# nothing slow is imported here, since processes that decode images import this file again
from pedfrac.config.phantoms import PhantomConfig
from pedfrac.config.retrain import RetrainConfig


class Clock:
    """Seconds of each kind of step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def counting(self, kind: str):
        """Add what is done inside to a kind of step."""
        began = time.monotonic()
        yield
        self.seconds[kind] = self.seconds.get(kind, 0) + time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", help="YAML file; left out: the defaults")
    parser.add_argument("--set", action="append", default=[], help="As in pedfrac")
    parser.add_argument("--images", type=int, help="Draw so many phantoms first")
    parser.add_argument("--scale", type=float, default=1.0, help="Of the phantoms")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        places = {name: Path(folder) / name for name in ("data", "artifacts", "results")}
        where = [
            f"data.root={places['data']}",
            *(f"{n}={places[n]}" for n in places if n != "data"),
        ]
        config = load_config(given.config, [*where, *given.set])
        if given.images:
            from pedfrac.phantoms.dataset import write_phantoms

            write_phantoms(places["data"], PhantomConfig(images=given.images, scale=given.scale))
        clock = retrain(config)
    if given.json:
        print(json.dumps(clock.seconds))
        return
    import torch

    from pedfrac.compute.devices import resolve_device

    device = resolve_device(config.runtime.device)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    print(f"{gpu}, {os.cpu_count()} cores, torch {torch.__version__}\n")
    print("| step | seconds |\n|---|---|")
    for kind, spent in [*clock.seconds.items(), ("all", sum(clock.seconds.values()))]:
        print(f"| {kind} | {spent:.1f} |")


def retrain(config: RetrainConfig) -> Clock:
    """Do all that a retraining does; return how long each kind of step took."""
    from pedfrac import pipeline

    for name in ("explanation", "robustness", "profiling"):
        import_module(f"pedfrac.{name}")  # steps import these when they need them
    clock = Clock()
    with clock.counting("records, cohort, split"):
        records = pipeline.read_records(config)
        cohort = pipeline.select_cohort(config, records)
        split = pipeline.split_patients(config, cohort)
    with clock.counting("pack"):
        packs = [
            pipeline.pack_images(config, records, section.model)
            for section in (config.fracture, config.age)
        ]
    prepared = pipeline.Prepared(
        records=records, cohort=cohort, split=split, fracture_pack=packs[0], age_pack=packs[1]
    )
    with clock.counting("training of the generalist"):
        generalist = pipeline.fracture_training(config, prepared).run()
    with clock.counting("training of the age classifier"):
        age = pipeline.age_training(config, prepared).run()
    with clock.counting("training of the specialists"):
        specialists = [
            pipeline.fracture_training(config, prepared, group, generalist).run()
            for group in range(len(config.cohort.ages))
        ]
    with clock.counting("evaluation"):
        trained = pipeline.Trained(age=age, generalist=generalist, specialists=tuple(specialists))
        bundle = pipeline.assemble_bundle(config, prepared, trained)
        evaluation = pipeline.evaluate_bundle(config, prepared, bundle)
    with clock.counting("explanation"):
        pipeline.explain_bundle(config, prepared, bundle, evaluation)
    with clock.counting("robustness"):
        pipeline.check_robustness(config, prepared, bundle, evaluation)
    return clock


if __name__ == "__main__":
    main()
