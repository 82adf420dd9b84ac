"""Preflight of outputs: folders and storage take files, MLflow answers, the disk has room."""

import os
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

from pedfrac.config.retrain import RetrainConfig
from pedfrac.errors import PedfracError
from pedfrac.pipeline.preflight_networks import SECONDS, weight_bytes
from pedfrac.pipeline.preflight_scope import AGE, WHOLE, Scope
from pedfrac.storage.store import ArtifactStore
from pedfrac.storage.uri import is_remote

COPIES = 4  # of each network's weights: as trained, in the bundle, in the results, in MLflow
RESUMING = 4  # weights, their average and two moments of AdamW, beside a training
GIGABYTE = 1e9
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def output_faults(config: RetrainConfig, scope: Scope = WHOLE) -> Iterator[tuple[str, str]]:
    """Yield what would keep results from being written: field and what is wrong with it."""
    root = config.artifact_root
    if is_remote(root):
        yield from _told("artifacts", _unwritable_prefix(root))
    else:
        yield from _told("artifacts", _unwritable_folder(Path(root)))
    if config.results and not scope.alone:
        yield from _told("results", _unwritable_folder(Path(config.results)))
    yield from _told("tracking.uri", _unreachable_mlflow(config))


def space_fault(
    config: RetrainConfig, store: ArtifactStore, images: int, scope: Scope = WHOLE
) -> Iterator[tuple[str, str]]:
    """Yield a fault where the disk has less room than packs and networks of a run will take.

    ``images`` that will be packed. What is in the store already takes no more room.
    """
    folder = _existing(_local_folder(config))
    needed, free = bytes_needed(config, store, images, scope), shutil.disk_usage(folder).free
    if needed > free:
        yield (
            "artifacts",
            f"{folder}: {free / GIGABYTE:.1f} GB are free, about {needed / GIGABYTE:.1f} GB are "
            f"needed for the packs of {images} images and the networks; free some, lower "
            "model.size, or set artifacts to another disk",
        )


def bytes_needed(
    config: RetrainConfig, store: ArtifactStore, images: int, scope: Scope = WHOLE
) -> int:
    """Return about how many bytes a run adds: packs, networks with their copies, checkpoints."""
    fracture, age, ages = config.fracture.model, config.age.model, config.cohort.ages
    packed = [one.manifest.config for one in store.of_kind("pack")]
    preparations = {
        one.size: one.model_dump(mode="json") for one in map(config.preparation, (fracture, age))
    }
    packs = sum(size**2 * images for size, one in preparations.items() if one not in packed)
    own, of_age = weight_bytes(fracture, ages, None), weight_bytes(age, ages, config.age.head)
    if not scope.whole:
        trained = of_age if scope.trained == AGE else own
        return packs + (1 + RESUMING) * trained
    once = own * (1 + len(ages)) + of_age
    sets = 1 + config.split.held_out
    return packs + once * (COPIES + 2 * (sets - 1)) + RESUMING * max(own, of_age)


def _local_folder(config: RetrainConfig) -> Path:
    if not is_remote(config.artifact_root):
        return Path(config.artifact_root)
    from pedfrac.storage.node_cache import cache_of_environment

    return cache_of_environment().path("")


def _told(field: str, reason: str) -> Iterator[tuple[str, str]]:
    if reason:
        yield field, reason


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above that is there."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _unwritable_folder(folder: Path) -> str:
    """Return why no file can be written in a folder, or in the one where it will be made."""
    there = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=there):
            return ""
    except NotADirectoryError:
        return f"{there}: is a file, where a folder is needed; name another folder"
    except OSError as error:
        return f"{there}: cannot be written ({error.strerror}); mend it, or name another folder"


def _unwritable_prefix(root: str) -> str:
    from pedfrac.storage.s3_client import Objects  # boto3 is slow to import

    name = f"check-{uuid.uuid4().hex}"
    try:
        objects = Objects(root)
        objects.put(name, b"")
        objects.delete([name])
        return ""
    except PedfracError as error:
        return str(error)
    except Exception as error:  # of boto3 and of the network: a wrong endpoint, no key, no route
        return (
            f"{root}: cannot be written ({type(error).__name__}: {error}); look at "
            "AWS_ENDPOINT_URL, the keys and the bucket"
        )


def _moved_mlflow(config: RetrainConfig) -> str:
    from pedfrac.mlflow_runs import moved_store

    try:
        return moved_store(config.tracking, config.tracking_folder)
    except PedfracError as error:  # the file is no store, or one of another version of MLflow
        return str(error)


def _unreachable_mlflow(config: RetrainConfig) -> str:
    """Return why MLflow cannot keep runs; its own client would try for minutes."""
    from pedfrac.mlflow_runs import tracking_uri  # slow to import

    uri = tracking_uri(config.tracking, config.tracking_folder)
    scheme, _, path = uri.partition("://")
    advice = "set tracking.uri or MLFLOW_TRACKING_URI to where it is"
    if scheme == "sqlite":
        file = Path(path.removeprefix("/"))
        if file.is_file() and not os.access(file, os.W_OK):
            return f"{file}: cannot be written; mend it, or {advice}"
        unwritable = _unwritable_folder(file.parent)
        return unwritable or _moved_mlflow(config)
    if scheme not in ("http", "https"):
        return ""
    try:
        host = urllib.parse.urlsplit(uri).hostname
        proxies: dict[str, str] | None = {} if host in LOOPBACK else None
        opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
        with opener.open(f"{uri.rstrip('/')}/health", timeout=SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        if error.code in (401, 403, 404):  # it answers; who may ask is found out by asking
            return ""
        return f"MLflow at {uri} answers {error.code} {error.reason}; look at it, or {advice}"
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return f"MLflow at {uri} does not answer ({reason}); start it, or {advice}"
