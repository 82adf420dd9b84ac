"""The command line as a user types it, with networks small enough for a test."""

import os
import subprocess
import sys
from pathlib import Path

TINY = {
    "data.root": "data",
    "cohort.age_bounds": "0,10,19",
    "split.test_per_year": 1,
    "fracture.model.backbone": "convnextv2_atto",
    "fracture.model.options": "{depths: [1, 1, 1, 1], dims: [8, 8, 16, 16]}",
    "fracture.model.weights": "none",
    "fracture.model.size": 48,
    "fracture.training.epochs": 2,
    "age.model.options": "{embed_dim: 8, depths: [1, 1], num_heads: [1, 2], window_size: 3}",
    "age.model.weights": "none",
    "age.model.size": 48,
    "age.training.epochs": 2,
    "evaluation.resamples": 50,
    "explanation.images_per_group": 3,
}

Done = subprocess.CompletedProcess[str]


def pedfrac(folder: Path, *arguments: object, env: dict[str, str] | None = None, **changes) -> Done:
    """Run the command line in a folder; ``changes`` are configuration, each a --set of its own."""
    settings = [f"--set={name}={value}" for name, value in changes.items()]
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, arguments), *settings],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
        env=os.environ | {"PREFECT_HOME": str(folder / "prefect"), "COLUMNS": "200"} | (env or {}),
    )


def tiny(folder: Path, *arguments: object, env: dict[str, str] | None = None, **changes) -> Done:
    """Run the command line in a folder with tiny networks, on the data set in ``data`` there."""
    return pedfrac(folder, *arguments, env=env, **TINY | changes)
