"""Steps from the data set to packed images: records, cohort, split, pack."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from pedfrac.config.retrain import RetrainConfig
from pedfrac.config.training import ModelConfig
from pedfrac.data import cohort as cohorts
from pedfrac.data import records as record_tables
from pedfrac.data import source as data_source
from pedfrac.data import split as data_split
from pedfrac.data import splitting
from pedfrac.data.split_file import read_previous_split
from pedfrac.errors import PedfracError
from pedfrac.packs.build import build_pack
from pedfrac.packs.pack import CONTENT, ENTRIES
from pedfrac.pipeline.keys import Progress, store_of
from pedfrac.storage.files import file_hash
from pedfrac.storage.manifest import Artifact
from pedfrac.storage.store import ArtifactStore

logger = logging.getLogger(__name__)


def read_records(config: RetrainConfig, progress: Progress | None = None) -> str:
    """Read and check the data set."""

    def make(folder: Path) -> None:
        data = data_source.fetched(config.data)
        records = record_tables.read_records(data, config.runtime.workers, progress)
        record_tables.save_records(records, folder)

    settings = config.data.model_dump(mode="json") | {"root": data_source.origin(config.data)}
    sources = data_source.fingerprint(config.data)
    made = store_of(config).produce("records", make, config=settings, sources=sources)
    _say_issues(made)
    return made.key


def _say_issues(records: Artifact) -> None:
    """Say in numbers what issues.csv lists, whether the records were read now or before."""
    summary = records.read_json("summary.json")
    if summary["issues"]:
        kinds = ", ".join(f"{kind} {count}" for kind, count in summary["issues"].items())
        logger.warning(
            "%d of %d rows usable; listed in %s: %s",
            *(summary["usable"], summary["rows"], records.file("issues.csv"), kinds),
        )


def count_listed(config: RetrainConfig) -> dict[str, Any]:
    """Return the counts of the valid rows of dataset.csv, with or without image files.

    Images, patients and labels, and ``groups`` before and after the exclusions of the cohort.
    """
    data = config.data.model_copy(update={"images": False})
    records = record_tables.read_records(data_source.fetched(data))
    counts = cohorts.count_images(records.table) | {
        name: records.summary()[name] for name in ("studies", "metal")
    }
    return counts | {"groups": cohorts.make_cohort(records, config.cohort).groups}


def select_cohort(config: RetrainConfig, records: str) -> str:
    """Take out the images that the configuration excludes."""
    store = store_of(config)
    parent = store.peek(records)

    def make(folder: Path) -> None:
        cohorts.save_cohort(
            cohorts.make_cohort(record_tables.load_records(parent.path), config.cohort), folder
        )

    settings = config.cohort.model_dump(mode="json")
    return store.produce("cohort", make, config=settings, parents={"records": parent}).key


def split_patients(config: RetrainConfig, cohort: str) -> str:
    """Divide the patients, each keeping the place that an earlier split gave it."""
    store = store_of(config)
    parent = store.peek(cohort)
    parents = {"cohort": parent}
    earlier = find_earlier_split(store, config, cohorts.load_cohort(parent.path).table)
    if earlier and earlier.manifest.parents["cohort"].digest == parent.digest:
        return store.get(earlier.key).key
    if earlier:
        parents["previous"] = earlier

    def make(folder: Path) -> None:
        table = cohorts.load_cohort(parent.path).table
        previous = previous_table(config, earlier)
        made = splitting.make_split(table, config.split, config.cohort.ages, previous)
        data_split.save_split(*made, folder)

    return store.produce(
        "split",
        make,
        config=_split_settings(config),
        sources=split_files(config),
        parents=parents,
    ).key


def pack_images(
    config: RetrainConfig, records: str, model: ModelConfig, progress: Progress | None = None
) -> str:
    """Prepare all usable images for a model. Models of one size share the pack.

    Images that the latest pack of the same preparation and data folder holds are linked from it; a
    pack in object storage is fetched for that, which is cheaper than decoding again.
    """
    if not config.data.images:
        raise PedfracError("data.images is off: images cannot be packed without looking at them")
    store = store_of(config)
    parent = store.peek(records)
    preparation = config.preparation(model)
    settings = preparation.model_dump(mode="json")

    def make(folder: Path) -> Artifact | None:
        read = record_tables.load_records(parent.path)
        earlier = _earlier_pack(store, parent, settings)
        build_pack(
            folder,
            read.table,
            read.boxes,
            Path(data_source.fetched(config.data).root),
            preparation,
            config.runtime.workers,
            progress,
            None if earlier is None else earlier.path,
        )
        return earlier

    return store.produce(
        "pack",
        make,
        config=settings,
        parents={"records": parent},
        resumable=True,
        told_by=CONTENT,
    ).key


def pack_key(config: RetrainConfig, records: str, model: ModelConfig) -> str:
    """Return the key under which the images packed for a model lie, or will."""
    store, settings = store_of(config), config.preparation(model).model_dump(mode="json")
    return store.key("pack", config=settings, parents={"records": store.peek(records)})


def _earlier_pack(
    store: ArtifactStore, records: Artifact, settings: dict[str, Any]
) -> Artifact | None:
    """Return the newest sound pack of a preparation and of the data folder of these records."""
    for pack in store.of_kind("pack"):
        source = pack.manifest.parents["records"]
        shareable = pack.manifest.config == settings and ENTRIES in pack.manifest.files
        if not shareable or not store.exists(source.key):
            continue
        read = store.peek(source.key)
        same_root = read.manifest.config["root"] == records.manifest.config["root"]
        if not same_root or read.digest != source.digest:
            continue
        if (sound := store.find(pack.key)) is not None:
            return sound
    return None


def _split_settings(config: RetrainConfig) -> dict[str, Any]:
    split = config.split.of_the_bundle
    # 0 stands for no fold, as in splits that are there already and whose test sets are followed
    own = {"fold": split.fold or 0, "age_bounds": list(config.cohort.age_bounds)}
    return split.model_dump(mode="json") | own


def split_files(config: RetrainConfig) -> dict[str, str]:
    """Return the fingerprints of the CSV files that the split follows."""
    named = {"file": config.split.file, "previous": config.split.previous}
    return {
        name: file_hash(Path(path)) for name, path in named.items() if path and Path(path).is_file()
    }


def find_earlier_split(
    store: ArtifactStore, config: RetrainConfig, images: pd.DataFrame
) -> Artifact | None:
    """Return the newest split by the same rules that has images of a cohort, to be followed.

    Images are known by their filestems, wherever the data lie: a link that leads to the next
    release must not make a new test set of patients who have trained. ``images``: the cohort.
    """
    if config.split.file or config.split.previous != "latest":
        return None
    rules, cohort = _split_settings(config), config.cohort.model_dump(mode="json")
    strange = other_rules = 0
    for earlier in store.of_kind("split"):
        made_from = store.peek(earlier.manifest.parents["cohort"].key)
        if (earlier.manifest.config, made_from.manifest.config) != (rules, cohort):
            other_rules += 1
        elif _has_any(earlier, images):
            return earlier
        else:
            strange += 1
    if strange or other_rules:
        logger.warning(
            "no earlier split is followed, a new test set is drawn: of those in the store %d have "
            "none of these images, %d were made by other rules (split, cohort). To keep a test "
            "set, name its split.csv in split.previous",
            *(strange, other_rules),
        )
    return None


def _has_any(split: Artifact, images: pd.DataFrame) -> bool:
    named = data_split.load_split(split.path).table["filestem"]
    return bool(images["filestem"].isin(set(named)).any())


def previous_table(config: RetrainConfig, earlier: Artifact | None) -> pd.DataFrame | None:
    """Return the table of the split whose patients keep their place, None where there is none."""
    if earlier:
        return data_split.load_split(earlier.path).table
    if config.split.file or config.split.previous in ("latest", "none"):
        return None
    return read_previous_split(Path(config.split.previous))
