"""How fast the pack is: decoders, one core against bare decoding, two cores, few images new.

Everything is measured in turns within a round; metrics are ratios within a round, median and middle
80 %. Images are phantoms of real size unless ``--data`` names another set (made there if it is
not). The re-pack writes ``--many`` of them under other names where TMPDIR says, 0.7 MB each.
Decoders that are not installed are left out; to have all of them:
``pip install imagecodecs kornia-rs pyspng pyvips pyvips-binary``.
Run: ``python benchmarks/pack_speed.py --data FOLDER [--only decoders core cores repack]``
"""

import argparse
import cProfile
import io
import multiprocessing
import os
import platform
import pstats
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from repeated_images import write_listing, write_repeated
from turns import spread, take_turns

from pedfrac.imaging.decoding import decode
from pedfrac.imaging.letterbox import Placement

SIZE = 384
PARTS = ("decoders", "core", "cores", "repack")
Work = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="Data set; made if absent")
    parser.add_argument("--images", type=int, default=1200, help="Phantoms to make")
    parser.add_argument("--core-images", type=int, default=400, help="Images of one core's pack")
    parser.add_argument("--many", type=int, default=4800, help="Images of the packs of all cores")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    given = parser.parse_args()
    if not (given.data / "dataset.csv").exists():
        command = [sys.executable, "-m", "flows.cli", "phantom", str(given.data)]
        subprocess.run([*command, "--images", str(given.images)], check=True)
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{os.cpu_count()} cores ({platform.machine()}), load {load}")
    cv2.setNumThreads(1)
    for part in given.only:
        print(f"\n### {part}\n")
        {"decoders": _decoders, "core": _core, "cores": _cores, "repack": _repack}[part](given)


# ---- decoders ---------------------------------------------------------------------------------


def _decoders(given: argparse.Namespace) -> None:
    """Compare decoders on bytes in memory, to the high byte of each pixel."""
    real = Path(__file__).parents[2] / "shared" / "data" / "grazpedwri" / "images"
    sets = {
        "phantoms": sorted(given.data.glob("images*/*.png"))[:: max(1, given.images // 14)][:14]
    }
    if real.is_dir():
        sets["real images"] = sorted(real.glob("*.png"))
    for name, chosen in sets.items():
        images = [path.read_bytes() for path in chosen]
        expected = [by_opencv(image) for image in images]
        works = {
            decoder: lambda read=read, images=images: [read(image) for image in images]
            for decoder, read in _available().items()
        }
        for work in works.values():
            work()
        seconds = take_turns(works, given.rounds)
        print(f"{len(images)} {name}\n\n| decoder | ms an image | speed over OpenCV's | exact |")
        print("|---|---|---|---|")
        for decoder, each in seconds.items():
            found = works[decoder]()
            exact = all(map(np.array_equal, found, expected))
            ms, ratio = 1e3 * np.median(each) / len(images), spread(seconds["OpenCV"] / each)
            print(f"| {decoder} | {ms:.2f} | {ratio} | {'yes' if exact else 'no'} |")
        print()


def by_opencv(image: bytes) -> np.ndarray:
    return _high(cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_UNCHANGED))


def _high(pixels: np.ndarray) -> np.ndarray:
    return (np.squeeze(pixels) >> 8).astype(np.uint8) if pixels.dtype != np.uint8 else pixels


def _available() -> dict[str, Callable[[bytes], np.ndarray]]:
    from pedfrac.imaging.decoding import decode_bytes

    found = {"OpenCV": by_opencv, "pixels.decode_bytes": lambda image: decode_bytes(image, "image")}
    for add in (_pillow, _torchvision, _imagecodecs, _kornia, _pyspng, _pyvips):
        try:
            found[add.__name__[1:]] = add()
        except ImportError as error:
            print(f"left out: {error}")
    return found


def _pillow():
    from PIL import Image

    return lambda image: _high(np.asarray(Image.open(io.BytesIO(image))))


def _torchvision():
    import torch
    from torchvision.io import decode_image

    torch.set_num_threads(1)
    return lambda image: _high(
        decode_image(torch.frombuffer(bytearray(image), dtype=torch.uint8)).numpy()
    )


def _imagecodecs():
    from imagecodecs import png_decode

    return lambda image: _high(png_decode(image))


def _kornia():
    from kornia_rs.io import decode_image_png_u16

    def read(image: bytes) -> np.ndarray:
        width, height = struct.unpack_from(">II", image, 16)
        return _high(decode_image_png_u16(image, (height, width), "mono"))

    return read


def _pyspng():
    from pyspng import load

    return lambda image: _high(load(image))


def _pyvips():
    from pyvips import Image

    return lambda image: _high(Image.new_from_buffer(image, "", access="sequential").numpy())


# ---- one core and several ---------------------------------------------------------------------


def bare(paths: list[Path], read: Callable[[Path], np.ndarray] = decode) -> None:
    """Read, decode and resize images, and keep nothing."""
    cv2.setNumThreads(1)
    for path in paths:
        image = read(path)
        height, width = Placement.of(*image.shape, SIZE).inner
        cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _records(data: Path, rows: int):
    """Return table and boxes of a data set, repeated under new names to so many rows."""
    import pandas as pd

    from pedfrac.config.data import DataConfig
    from pedfrac.data.records import read_records

    read = read_records(DataConfig(root=str(data)))
    times = -(-rows // len(read.table))
    table, boxes = (
        pd.concat([one.assign(filestem=one["filestem"] + f"-{n}") for n in range(times)])
        for one in (read.table, read.boxes)
    )
    return table.head(rows).reset_index(drop=True), boxes.reset_index(drop=True)


def _packing(data: Path, rows: int, scratch: Path) -> Callable[[int], None]:
    from pedfrac.config.data import Preparation
    from pedfrac.packs.build import build_pack

    table, boxes = _records(data, rows)

    def pack(workers: int) -> None:
        folder = Path(tempfile.mkdtemp(dir=scratch))
        build_pack(folder, table, boxes, data, Preparation(size=SIZE), workers)
        shutil.rmtree(folder)

    return pack


def _core(given: argparse.Namespace) -> None:
    """The pack of one core against bare decoding and resizing, and where its time goes."""
    with tempfile.TemporaryDirectory() as scratch:
        pack = _packing(given.data, given.core_images, Path(scratch))
        paths = [
            given.data / image for image in _records(given.data, given.core_images)[0]["image"]
        ]
        works: dict[str, Work] = {
            "pack": lambda: pack(1),
            "bare": lambda: bare(paths),
            "bare with OpenCV": lambda: bare(paths, lambda path: by_opencv(path.read_bytes())),
        }
        for work in works.values():
            work()
        seconds = take_turns(works, given.rounds)
        print(
            f"{len(paths)} images\n\n| one core | images/s | pack's speed over it |\n|---|---|---|"
        )
        for name, each in seconds.items():
            ratio = spread(each / seconds["pack"])
            print(f"| {name} | {len(paths) / np.median(each):.0f} | {ratio} |")
        shares = ["read_bytes", "chunks", "_unpacked", "'accumulate'", "_remove_markers"]
        shares += ["letterbox", "'write' of '_io.Buffered", "_write_tables", "_sources"]
        _profile(lambda: pack(1), shares)


def _cores(given: argparse.Namespace) -> None:
    """How packing scales over the cores, beside how bare decoding does."""
    cores = os.cpu_count() or 1
    with (
        tempfile.TemporaryDirectory() as scratch,
        ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool,
    ):
        pack = _packing(given.data, given.many, Path(scratch))
        paths = [given.data / image for image in _records(given.data, given.many)[0]["image"]]
        parts = [paths[core::cores] for core in range(cores)]
        list(pool.map(bare, [part[:50] for part in parts], chunksize=1))
        works: dict[str, Work] = {
            "pack, 1": lambda: pack(1),
            "pack, all": lambda: pack(cores),
            "bare, 1": lambda: pool.submit(bare, paths).result(),
            "bare, all": lambda: list(pool.map(bare, parts, chunksize=1)),
        }
        seconds = take_turns(works, given.rounds)
    print(f"{len(paths)} images, {cores} cores ÷ 1\n")
    for name in ("pack", "bare"):
        print(f"- {name}: {spread(seconds[f'{name}, 1'] / seconds[f'{name}, all'])}")


# ---- few images new ----------------------------------------------------------------------------


def _repack(given: argparse.Namespace) -> None:
    """The pack step where every 100th image is new, against the same step without a pack before."""
    from pedfrac.config.retrain import RetrainConfig
    from pedfrac.pipeline.data import pack_images, read_records
    from pedfrac.pipeline.keys import store_of

    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"  # all files differ: one that is there twice is packed once
        listed = write_repeated(given.data, data, given.many)
        config = {
            name: RetrainConfig.model_validate(
                {"data": {"root": str(data)}, "artifacts": str(Path(scratch) / name)}
            )
            for name in ("full", "again")
        }
        old = np.arange(len(listed)) % 100 != 50
        write_listing(listed[old], data)
        again = config["again"]
        pack_images(again, read_records(again), again.fracture.model)
        write_listing(listed, data)
        records = {name: read_records(one) for name, one in config.items()}

        def pack(name: str) -> str:
            return pack_images(config[name], records[name], config[name].fracture.model)

        def remove(name: str) -> str:
            """Remove the pack of all images; an earlier one of fewer stays. Return what it held."""
            store = store_of(config[name])
            made = store.peek(pack(name))
            store.remove(made.manifest)
            return made.digest

        assert remove("full") == remove("again"), "a re-pack must be the pack"
        seconds = {name: np.zeros(given.rounds) for name in config}
        for number in range(given.rounds):
            for name in list(config)[:: (-1) ** number]:
                began = time.perf_counter()
                pack(name)
                seconds[name][number] = time.perf_counter() - began
                remove(name)
        for name, each in seconds.items():
            print(f"- {name}: {np.median(each):.2f} s")
        ratio = spread(seconds["again"] / seconds["full"])
        print(f"- {(~old).sum()} of {len(listed)} images new ÷ full: {ratio}")
        shares = ["find", "load_records", "_write_tables", "_sources", "rows_of", "share", "copy"]
        _profile(lambda: pack("again"), [*shares, "_write_images", "_fingerprint_files", "publish"])


# ---- measuring --------------------------------------------------------------------------------


def _profile(work: Work, names: list[str]) -> None:
    """Print the share of time that some functions take with all they call; none calls another."""
    profiler = cProfile.Profile()
    profiler.runcall(work)
    stats = pstats.Stats(profiler)
    whole, rest = stats.total_tt, stats.total_tt
    print("\n| where the time goes | share |\n|---|---|")
    for name in names:
        found = [
            entry[3]
            for (_, _, function), entry in stats.stats.items()
            if (name in function if name.startswith("'") else name == function)
        ]
        rest -= sum(found)
        print(f"| `{name}` | {100 * sum(found) / whole:.1f} % |")
    print(f"| the rest, and the profiler | {100 * rest / whole:.1f} % |")


if __name__ == "__main__":
    main()
