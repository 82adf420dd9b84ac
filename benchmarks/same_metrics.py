"""Does speed change metrics? Trainings with and without each trick of the step, over seeds.

Each seed draws weights, order and augmentation, and is the same for all variants; so a difference
within a seed is the trick's, and the spread between seeds is what it is to be held against.
Run: ``python benchmarks/same_metrics.py --config demo.yaml --work FOLDER`` (goes on where it
stopped; ``--data`` takes phantoms that are there already).
"""

import argparse
import os
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from scipy import stats
from training_speed import Variant, memory_layout
from turns import machine

from pedfrac import pipeline
from pedfrac.compute.devices import resolve_device
from pedfrac.compute.precision import multiplies_bf16
from pedfrac.config.loading import load_config
from pedfrac.config.phantoms import PhantomConfig
from pedfrac.config.retrain import RetrainConfig
from pedfrac.phantoms.dataset import write_phantoms

DEFAULT = Variant("default")
SLOWER = "AdamW in several passes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("demo.yaml"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="Phantoms; made where they are not there")
    parser.add_argument("--images", type=int, default=1400)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="Variants beside the default; else all")
    given = parser.parse_args()
    device = resolve_device("auto")
    data = given.data or given.work / "phantoms"
    if not (data / "dataset.csv").exists():
        write_phantoms(data, PhantomConfig(images=given.images, scale=0.35))
    found = [
        {"variant": one.name, "seed": seed, **_train(one, seed, given, data)}
        for seed in range(given.seeds)
        for one in _variants(device)
        if one == DEFAULT or not given.only or one.name in given.only
    ]
    print(f"{machine(device)}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}\n")
    _print(pd.DataFrame(found))


def _variants(device: torch.device) -> list[Variant]:
    others = ["fp32"] if device.type == "cuda" else ["bf16"] * multiplies_bf16(device)
    return [
        DEFAULT,
        Variant("without channels_last", channels_last=False),
        Variant(SLOWER),
        Variant("compiled", compile="on"),
        *(
            Variant(f"{start}{other}", precision=other, compile=compiled)
            for other in others
            for start, compiled in (("", "off"), ("compiled, ", "on"))
        ),
    ]


def _train(
    variant: Variant, seed: int, given: argparse.Namespace, data: Path
) -> dict[str, float | None]:
    """Return the validation metrics of the generalist's last epoch."""
    # what runtime says is in no key: each variant has its own artifacts
    settings = {
        "data.root": data,
        "artifacts": given.work / variant.name,
        "fracture.training.epochs": given.epochs,
        "fracture.training.patience": given.epochs,
        "fracture.training.seed": seed,
        "fracture.training.precision": variant.precision,
        "runtime.compile": variant.compile,
    }
    config: RetrainConfig = load_config(
        str(given.config), [f"{name}={value}" for name, value in settings.items()]
    )
    records = pipeline.read_records(config)
    cohort = pipeline.select_cohort(config, records)
    prepared = pipeline.Prepared(
        records=records,
        cohort=cohort,
        split=pipeline.split_patients(config, cohort),
        fracture_pack=pipeline.pack_images(config, records, config.fracture.model),
        age_pack="",
    )
    with ExitStack() as stack:
        stack.enter_context(memory_layout(variant.channels_last))
        if variant.name == SLOWER:
            stack.enter_context(_several_passes())
        key = pipeline.fracture_training(config, prepared).run()
    history: Any = pipeline.store_of(config).get(key).read_json("history.json")
    print(f"{variant.name}, seed {seed}: {history[-1]['validation']}", flush=True)
    return {name: history[-1]["validation"][name] for name in ("auroc", "loss")}


@contextmanager
def _several_passes():
    """Let AdamW go over the weights as often as it does where it is not fused."""
    fused = torch.optim.AdamW

    def plain(*given: Any, **more: Any) -> torch.optim.AdamW:
        return fused(*given, **more | {"fused": False})

    with mock.patch.object(torch.optim, "AdamW", plain):
        yield


def _print(found: pd.DataFrame) -> None:
    kinds = ["auroc", "loss"]
    by = found.pivot(index="seed", columns="variant", values=kinds)
    print(
        "| variant | AUROC, mean (sd of seeds) | minus default's (95 %) | loss | minus default's |"
    )
    print("|---|---|---|---|---|")
    for name in found["variant"].unique():
        cells = []
        for kind in kinds:
            own = by[kind, name]
            cells.append(f"{own.mean():.3f} ({own.std():.3f})")
            less = (own - by[kind, DEFAULT.name]).to_numpy()
            cells.append("" if name == DEFAULT.name else _with_interval(less))
        print(f"| {name} | {' | '.join(cells)} |")


def _with_interval(values: np.ndarray) -> str:
    """Return the mean of values with Student's interval of 95 %."""
    mean, half = values.mean(), values.std(ddof=1) / len(values) ** 0.5
    half *= stats.t.ppf(0.975, len(values) - 1)
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"


if __name__ == "__main__":
    main()
