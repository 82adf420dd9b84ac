"""What fanning out costs: five equal trainings on two workers against work / 2.

Starts a real Prefect server, MLflow, S3 server and workers on loopback, trains the same network
five times as children on the pool (five seeds) and once in a process of its own, and prints a
table. Run: ``python benchmarks/fan_out.py [--epochs 200]``
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from platforms import Platform, config, platform, seconds  # noqa: E402
from servers import seaweed  # noqa: E402

from pedfrac.config import PhantomConfig  # noqa: E402
from pedfrac.phantoms import write_phantoms  # noqa: E402

CHILDREN, WORKERS = 5, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=200)
    epochs = parser.parse_args().epochs
    with tempfile.TemporaryDirectory() as folder, seaweed(Path(folder) / "s3") as s3:
        s3.client.create_bucket(Bucket="pools")
        write_phantoms(Path(folder) / "data", PhantomConfig(images=300, scale=0.2))
        with platform(Path(folder), s3.environment, "s3://pools/bench") as stage:
            stage.start_workers("cpu", 1)
            stage.start_workers("gpu", WORKERS)
            prepared = stage.begin("pack/pack", config(stage, "bench"))
            assert stage.finish(prepared)["type"] == "COMPLETED"
            alone = _alone(stage, epochs)
            runs = _children(stage, epochs)
    spans = [(seconds(run["start_time"]), seconds(run["end_time"])) for run in runs]
    wall = max(end for _, end in spans) - min(seconds(run["created"]) for run in runs)
    overhead = mean(end - start for start, end in spans) - alone
    print(f"cores {os.cpu_count()}, {epochs} epochs, training alone {alone:.1f} s")
    print("| figure | value |\n|---|---|")
    print(
        f"| wall time of {CHILDREN} children / (their training / {WORKERS}) "
        f"| {wall / (CHILDREN * alone / WORKERS):.2f} |"
    )
    print(f"| a child's run beyond its training | {overhead:.1f} s |")
    print(f"| from asking to the first child's start | {_wait(runs):.1f} s |")


def _settings(stage: Platform, epochs: int, seed: int) -> dict:
    settings = config(stage, "bench", epochs=epochs)
    settings["config"]["fracture"]["training"] = {
        **settings["config"]["fracture"]["training"],
        "seed": seed,
    }
    return settings


def _alone(stage: Platform, epochs: int) -> float:
    """Return the seconds that the training itself takes with the cores of one worker."""
    script = Path(stage.folder) / "alone.py"
    script.write_text(
        "import json, sys, time\n"
        "from pedfrac import steps\nfrom pedfrac.config import RetrainConfig\n"
        "c = RetrainConfig.model_validate(json.loads(sys.argv[1])['config'])\n"
        "r = steps.read_records(c); k = steps.select_cohort(c, r)\n"
        "p = steps.Prepared(records=r, cohort=k, split=steps.split_patients(c, k),\n"
        "    fracture_pack=steps.pack_films(c, r, c.fracture.model),\n"
        "    age_pack=steps.pack_films(c, r, c.age.model))\n"
        "training = steps.fracture_training(c, p)\nstart = time.perf_counter()\n"
        "training.run()\nprint(time.perf_counter() - start)\n"
    )
    import json
    import subprocess

    done = subprocess.run(
        [sys.executable, str(script), json.dumps(_settings(stage, epochs, seed=99))],
        env=stage.environment | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def _children(stage: Platform, epochs: int) -> list[dict]:
    begun = [
        stage.begin("train-fracture/train-fracture", _settings(stage, epochs, seed))
        for seed in range(CHILDREN)
    ]
    for run in begun:
        state = stage.finish(run, seconds=3600)
        assert state["type"] == "COMPLETED", state["message"]
    return [run for run in stage.runs("train-fracture") if run["id"] in begun]


def _wait(runs: list[dict]) -> float:
    first = min(runs, key=lambda run: run["start_time"])
    return seconds(first["start_time"]) - seconds(first["created"])


if __name__ == "__main__":
    start = time.perf_counter()
    main()
    print(f"({time.perf_counter() - start:.0f} s in all)")
