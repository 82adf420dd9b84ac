"""Scores on disk: one table that appears whole, made of parts that outlive a killed run.

It knows that a row has a ``key`` and an ``error``; what else the rows say is not known here.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from pedfrac.errors import PedfracError
from pedfrac.storage.files import content_hash
from pedfrac.storage.uri import is_remote

SUFFIXES = (".parquet", ".csv", ".json")
PIECE = 2048  # rows in memory at a time


class ScoreFile:
    """A table of scores: Parquet, CSV or JSON by its suffix.

    Rows that are added lie in a folder beside it until ``finish`` puts the whole in its place.
    ``numbers`` are the columns that hold numbers, ``optional`` such as an older table may lack; all
    others hold text. What an earlier run left is found when the table is ``opened``.
    """

    def __init__(self, path: Path, numbers: Sequence[str], optional: Sequence[str] = ()):
        if path.suffix.lower() not in SUFFIXES:
            raise PedfracError(f"{path}: allowed suffixes of scores are {', '.join(SUFFIXES)}")
        self.path, self._numbers, self._optional = path, list(numbers), list(optional)
        self._parts = path.with_name(f"{path.name}.parts")
        self._known = _Known()

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the table for this process; raises PedfracError where another one writes it."""
        try:
            self._parts.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._parts / "lock", timeout=0)
            with lock:
                self._known = _Known()
                if self.path.exists():
                    whole = self._read()
                    self._known.add(whole, whole)
                for part in sorted(self._parts.glob("*.parquet")):
                    self._known.add(part, pd.read_parquet(part, columns=["key", "error"]))
                yield
        except Timeout:
            raise PedfracError(f"{self.path}: another run is writing it") from None
        except OSError as error:
            raise PedfracError(f"{self.path}: cannot be written ({error.strerror})") from None

    def scored(self) -> frozenset[str]:
        """Return the keys of rows that have a score; those with an error are to be tried again."""
        return frozenset(self._known.place.keys() - self._known.failed)

    def pieces(self, keys: Sequence[str]) -> Iterator[pd.DataFrame]:
        """Yield the rows of some keys, in their order; what was ever scored is no error."""
        places = np.fromiter((self._known.place[key] for key in keys), np.int64, len(keys))
        for start in range(0, len(places), PIECE):
            yield self._known.rows(places[start : start + PIECE])

    def add(self, rows: pd.DataFrame) -> None:
        """Keep rows, all of them or none."""
        part = self._parts / f"{len(self._known.sources):08d}.parquet"
        temporary = part.with_suffix(".new")
        rows.to_parquet(temporary, index=False)
        temporary.replace(part)
        self._known.add(part, rows)

    def finish(self, pieces: Iterable[pd.DataFrame]) -> None:
        """Put a table of these rows in its place, and remove the parts."""
        temporary = self._parts / f"whole{self.path.suffix.lower()}"
        _write(pieces, temporary)
        temporary.replace(self.path)
        shutil.rmtree(self._parts)

    def _read(self) -> pd.DataFrame:
        """Read what ``finish`` wrote, to the last digit."""
        try:
            rows = _read(self.path)
            if not {"key", "error", *self._numbers} <= set(rows.columns):
                raise ValueError("its columns are others")
            return _typed(rows, [*self._numbers, *self._optional])
        except (OSError, ValueError) as error:
            raise PedfracError(
                f"{self.path}: is there, but holds no scores to go on with ({error}); name another"
            ) from None


class _Known:
    """The rows written so far, in finished table and parts, by key.

    Only the position of each row is kept, so that memory hardly grows with the number of images.
    """

    def __init__(self) -> None:
        self.sources: list[Path | pd.DataFrame] = []
        self.place: dict[str, int] = {}  # of a key's row
        self.failed: set[str] = set()  # keys of which no row has a score
        self._starts: list[int] = []
        self._count = 0

    def add(self, source: Path | pd.DataFrame, rows: pd.DataFrame) -> None:
        """Go on with a source; of a key's rows the last one with a score counts, or the last."""
        self.sources.append(source)
        self._starts.append(self._count)
        for place, (key, error) in enumerate(zip(rows["key"], rows["error"], strict=True)):
            if error == "":
                self.failed.discard(key)
            elif key not in self.place:
                self.failed.add(key)
            elif key not in self.failed:
                continue
            self.place[key] = self._count + place
        self._count += len(rows)

    def rows(self, places: NDArray[np.int64]) -> pd.DataFrame:
        """Return the rows at some places, in their order."""
        sources = np.searchsorted(self._starts, places, side="right") - 1
        found = []
        for number in np.unique(sources):
            source, wanted = self.sources[number], np.flatnonzero(sources == number)
            rows = source if isinstance(source, pd.DataFrame) else pd.read_parquet(source)
            found.append(rows.iloc[places[wanted] - self._starts[number]].set_axis(wanted))
        return pd.concat(found).sort_index()


@contextmanager
def local_output(output: str) -> Iterator[Path]:
    """Yield a local path for a table; one at ``s3://`` is fetched first and uploaded at the end.

    Parts of a killed run stay on the node where it ran.
    """
    if not is_remote(output):
        yield Path(output)
        return
    from pedfrac.storage.node_cache import cache_of_environment
    from pedfrac.storage.s3_client import Objects

    above, _, name = output.rpartition("/")
    objects = Objects(above)
    folder = cache_of_environment().work(f"scores/{content_hash([objects.endpoint, output])[:16]}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if (there := objects.get(name)) is not None:
        path.write_bytes(there)
    yield path
    objects.put(name, path.read_bytes())
    path.unlink()


def as_records(rows: pd.DataFrame) -> list[dict[str, object]]:
    """Return rows as JSON has them, None where there is no value."""
    records = rows.astype(object).where(rows.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in records]


def _write(pieces: Iterable[pd.DataFrame], path: Path) -> None:
    write = {".parquet": _write_parquet, ".csv": _write_csv, ".json": _write_json}
    write[path.suffix](iter(pieces), path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _write_parquet(pieces: Iterator[pd.DataFrame], path: Path) -> None:
    first = pa.Table.from_pandas(next(pieces), preserve_index=False)
    with pq.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        for rows in pieces:
            writer.write_table(pa.Table.from_pandas(rows, first.schema, preserve_index=False))


def _write_csv(pieces: Iterator[pd.DataFrame], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        for number, rows in enumerate(pieces):
            rows.to_csv(file, index=False, header=number == 0)


def _write_json(pieces: Iterator[pd.DataFrame], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for number, rows in enumerate(pieces):
            listed = json.dumps(as_records(rows), indent=1, allow_nan=False)
            file.write(("," if number else "[") + listed.removeprefix("[").removesuffix("\n]"))
        file.write("\n]\n")


def read_scores(path: str | Path, numbers: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table of scores, here or at ``s3://``; raise PedfracError where there is none.

    ``numbers`` are columns that hold numbers, NaN where the table lacks them; what others hold is
    as the format has it.
    """
    if not is_remote(path):
        return _typed(_read_here(Path(path)), numbers)
    from pedfrac.storage.s3_client import Objects

    above, _, name = str(path).rpartition("/")
    content = Objects(above).get(name)
    if content is None:
        raise PedfracError(f"{path}: no such table of scores")
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / name
        local.write_bytes(content)
        return _typed(_read_here(local), numbers)


def _typed(rows: pd.DataFrame, numbers: Sequence[str]) -> pd.DataFrame:
    rows = rows.reindex(columns=list(dict.fromkeys([*rows, *numbers])))
    rows[list(numbers)] = rows[list(numbers)].replace("", None).astype(float)
    return rows


def _read_here(path: Path) -> pd.DataFrame:
    if path.suffix.lower() not in SUFFIXES:
        raise PedfracError(f"{path}: allowed suffixes of scores are {', '.join(SUFFIXES)}")
    try:
        return _read(path)
    except (OSError, ValueError) as error:
        raise PedfracError(f"{path}: cannot be read as scores ({error})") from None


def _read(path: Path) -> pd.DataFrame:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return pd.read_parquet(path)
    if suffix == ".csv":
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    return pd.DataFrame(json.loads(path.read_text()))
