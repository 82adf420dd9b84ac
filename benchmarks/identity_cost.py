"""What it costs to know files by more than name, size and time: with ÷ without, in turns.

``records`` reads a dataset of phantoms, ``predict`` scores its images with a bundle. Without means
that a file is what its size and modification time say, as before; with means inode and change time
for images and SHA-256 for labels. Shown is the ratio of a round's seconds, as median with the
quantiles .1 and .9.
Run: ``python benchmarks/identity_cost.py --bundle BUNDLE``
"""

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

from turns import spread, take_turns

from pedfrac.config.loading import load_config
from pedfrac.config.phantoms import PhantomConfig
from pedfrac.config.serving import PredictionConfig
from pedfrac.data import layout
from pedfrac.phantoms.dataset import write_phantoms
from pedfrac.pipeline.data import read_records
from pedfrac.pipeline.prediction import predict_images
from pedfrac.serving import images as images_to_score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_phantoms(data, PhantomConfig(images=given.images, scale=0.35))
        for name, work in (("records", records), ("predict", predict)):
            run = work(data, given.bundle)
            works = {"with": run, "without": lambda run=run: by_size_and_time(run)}
            seconds = take_turns(works, given.rounds)
            print(f"{name}: {spread(seconds['with'] / seconds['without'])}")


def records(data: Path, bundle: str):
    def run() -> None:
        with tempfile.TemporaryDirectory() as store:
            read_records(load_config(None, [f"data.root={data}", f"artifacts={store}"]))

    return run


def predict(data: Path, bundle: str):
    def run() -> None:
        with tempfile.TemporaryDirectory() as store:
            output = f"{store}/scores.csv"
            predict_images(PredictionConfig(images=(str(data),), bundle=bundle, output=output))

    return run


def size_and_time(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def by_state(path: Path) -> str:
    return str(size_and_time(path))


def by_size_and_time(run) -> None:
    """Run with files known by size and modification time alone."""
    with ExitStack() as stack:
        for module in (layout, images_to_score):
            stack.enter_context(mock.patch.object(module, "file_stamp", size_and_time))
        stack.enter_context(mock.patch.object(layout, "file_hash", by_state))
        run()


if __name__ == "__main__":
    main()
