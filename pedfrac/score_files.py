"""Scores on disk: one table that appears whole, made of parts that outlive a killed run.

It knows that a row has a ``key`` and an ``error``; what else the rows say is not known here.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from pedfrac.errors import PedfracError
from pedfrac.storage import content_hash, is_remote

SUFFIXES = (".parquet", ".csv", ".json")


class ScoreFile:
    """A table of scores: Parquet, CSV or JSON by its suffix.

    Rows that are added lie in a folder beside it until ``finish`` puts the whole in its place.
    ``numbers`` are the columns that hold numbers, ``optional`` such as an older table may lack; all
    others hold text.
    """

    def __init__(self, path: Path, numbers: Sequence[str], optional: Sequence[str] = ()):
        if path.suffix.lower() not in SUFFIXES:
            raise PedfracError(f"{path}: allowed suffixes of scores are {', '.join(SUFFIXES)}")
        self.path, self._numbers, self._optional = path, list(numbers), list(optional)
        self._parts = path.with_name(f"{path.name}.parts")

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the table for this process; raises PedfracError where another one writes it."""
        try:
            self._parts.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._parts / "lock", timeout=0)
            with lock:
                yield
        except Timeout:
            raise PedfracError(f"{self.path}: another run is writing it") from None
        except OSError as error:
            raise PedfracError(f"{self.path}: cannot be written ({error.strerror})") from None

    def scored(self) -> frozenset[str]:
        """Return the keys of rows that have a score; those with an error are to be tried again."""
        tables = self._tables(["key", "error"])
        return frozenset(key for rows in tables for key in rows.loc[rows["error"] == "", "key"])

    def rows(self, keys: Sequence[str]) -> pd.DataFrame:
        """Return the rows of some keys, in their order; what was ever scored is no error."""
        every = pd.concat(self._tables(), ignore_index=True)
        errors_first = every["error"].eq("").sort_values(kind="stable").index
        last = every["key"].iloc[errors_first].drop_duplicates(keep="last")
        places = pd.Series(last.index, index=last.to_numpy())
        return every.iloc[places.loc[list(keys)]].reset_index(drop=True)

    def add(self, rows: pd.DataFrame) -> None:
        """Keep rows, all of them or none."""
        part = self._parts / f"{rows['key'].iloc[0]}.parquet"
        temporary = part.with_suffix(".new")
        rows.to_parquet(temporary, index=False)
        temporary.replace(part)

    def finish(self, rows: pd.DataFrame) -> None:
        """Put a table of these rows in its place, and remove the parts."""
        temporary = self._parts / f"whole{self.path.suffix.lower()}"
        _write(rows, temporary)
        temporary.replace(self.path)
        shutil.rmtree(self._parts)

    def _tables(self, columns: list[str] | None = None) -> Iterator[pd.DataFrame]:
        """Yield the finished table and the parts, or some of their columns."""
        if self.path.exists():
            whole = self._read()
            yield whole if columns is None else whole[columns]
        for part in sorted(self._parts.glob("*.parquet")):
            yield pd.read_parquet(part, columns=columns)

    def _read(self) -> pd.DataFrame:
        """Read what ``finish`` wrote, to the last digit."""
        try:
            rows = _read(self.path)
            if not {"key", "error", *self._numbers} <= set(rows.columns):
                raise ValueError("its columns are others")
            rows = rows.reindex(columns=list(dict.fromkeys([*rows, *self._optional])))
            numbers = [*self._numbers, *self._optional]
            rows[numbers] = rows[numbers].replace("", None).astype(float)
            return rows
        except (OSError, ValueError) as error:
            raise PedfracError(
                f"{self.path}: is there, but holds no scores to go on with ({error}); name another"
            ) from None


@contextmanager
def local_output(output: str) -> Iterator[Path]:
    """Yield a path here for a table: its own, or for one at ``s3://`` one that is sent in the end.

    What is there already is fetched; the parts of a killed run are on the node where it ran.
    """
    if not is_remote(output):
        yield Path(output)
        return
    from pedfrac.cache import cache_of_environment
    from pedfrac.objects import Objects

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


def _write(rows: pd.DataFrame, path: Path) -> None:
    if path.suffix == ".parquet":
        rows.to_parquet(path, index=False)
    elif path.suffix == ".csv":
        rows.to_csv(path, index=False)
    else:
        path.write_text(json.dumps(as_records(rows), indent=1, allow_nan=False) + "\n")
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_scores(path: Path) -> pd.DataFrame:
    """Read a table of scores; raise PedfracError where there is none."""
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
