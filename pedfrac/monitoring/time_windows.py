"""Windows: images that were scored in some time, as tables of scores tell of them.

Not here: what they are compared with (drift).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from pedfrac.bundle.reference_profile import CATEGORIES, CONTINUOUS, views
from pedfrac.config.monitoring import MonitorConfig
from pedfrac.data.brought_tables import read_brought_table, refuse_repeated
from pedfrac.errors import PedfracError
from pedfrac.serving.score_table import read_scores
from pedfrac.storage.uri import is_remote

logger = logging.getLogger(__name__)
NEEDED = ("file", "key", "error", "bundle", "scored", "patient", *CONTINUOUS, *CATEGORIES[:3])
YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")


@dataclass(frozen=True, eq=False)
class Window:
    """Images of a window, one row each, and what was left out, by reason.

    ``images``: as of a profile, but ``fractured`` is 1, 0 or NaN (not known); ``known``: whether
    the patients of all images are. ``counts``: images left out. ``since`` and ``until``: when the
    first and the last of them was scored.
    """

    images: pd.DataFrame
    known: bool
    counts: dict[str, int]
    since: str
    until: str


def read_window(config: MonitorConfig, digest: str, features: Sequence[str]) -> Window:
    """Return the window that a configuration names, of images that the bundle (digest) scored.

    Raises PedfracError for tables without what monitoring needs, and where another bundle scored
    all of it.
    """
    rows = pd.concat([_read(path, features) for path in config.scores], ignore_index=True)
    rows = rows.drop_duplicates("key", keep="last")
    failed = rows["error"] != ""
    rows, since, until = _in_time(rows[~failed], config)
    others = rows["bundle"] != digest[:16]
    if len(rows) and others.all():
        raise PedfracError(
            f"{', '.join(config.scores)}: all {len(rows)} images were scored by another bundle "
            f"({rows['bundle'].iloc[0] or 'not named'}); that of the profile is {digest[:16]}"
        )
    images = rows[~others].reset_index(drop=True)
    images["view"] = views(images["view"])
    images["fractured"] = _labels(config.labels, images["file"]) if config.labels else np.nan
    known = bool((images["patient"] != "").all())
    words = images["patient"] if known else images["key"]
    images["patient"] = pd.factorize(words)[0]
    counts = {"without a score": int(failed.sum()), "by another bundle": int(others.sum())}
    return Window(images, known, counts, since, until)


def check_files(config: MonitorConfig) -> None:
    """Raise PedfracError for tables here that do not exist: what a glance shows to be wrong."""
    for path in (*config.scores, *([config.labels] if config.labels else [])):
        if not is_remote(path) and not Path(path).is_file():
            raise PedfracError(f"{path}: no such file")


def _read(path: str, features: Sequence[str]) -> pd.DataFrame:
    rows = read_scores(path)
    if missing := [name for name in NEEDED if name not in rows]:
        raise PedfracError(
            f"{path}: column {', '.join(missing)} is missing; scores to monitor are what "
            "`pedfrac predict -o` writes since bundles have reference profiles"
        )
    numbers = [*CONTINUOUS, *features]
    rows = rows.reindex(columns=list(dict.fromkeys([*rows, *features])))
    rows[numbers] = rows[numbers].replace("", None).apply(pd.to_numeric, errors="coerce")
    texts = rows.columns.difference(numbers)
    return rows.astype(dict.fromkeys(texts, object)).fillna(dict.fromkeys(texts, ""))


def _in_time(rows: pd.DataFrame, config: MonitorConfig) -> tuple[pd.DataFrame, str, str]:
    """Return the rows that were scored in the configured time, and when the first and last was."""
    scored = pd.to_datetime(rows["scored"], utc=True, errors="coerce", format="ISO8601")
    since = _time("since", config.since) if config.since else None
    if config.last_days is not None:
        since = datetime.now(UTC) - timedelta(days=config.last_days)
    until = _time("until", config.until) if config.until else None
    inside = pd.Series(True, rows.index)
    if since is not None:
        inside &= scored >= since
    if until is not None:
        inside &= scored < until
    times = scored[inside].dropna()
    ends = (times.min(), times.max()) if len(times) else (None, None)
    first, last = ("" if end is None else end.isoformat(timespec="seconds") for end in ends)
    return rows[inside], first, last


def _time(name: str, text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise PedfracError(
            f"{name} {text!r}: must be a date or time such as 2025-03-31 or 2025-03-31T08:00+01:00"
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _labels(path: str, files: pd.Series) -> pd.Series:
    """Return the labels of files: 1 fractured, 0 normal, NaN where none is given."""
    table = read_brought_table(Path(path), ("file", "fractured"))
    refuse_repeated(Path(path), table, "file")
    told = table["fractured"].str.lower()
    wrong = ~told.isin([*YES, *NO, ""])
    if wrong.any():
        line = table.index[wrong][0]
        raise PedfracError(
            f"{path} line {line}: fractured {table['fractured'][line]!r}; "
            "allowed are 1, 0 and empty"
        )
    values = told.map({**dict.fromkeys(YES, 1.0), **dict.fromkeys(NO, 0.0)})
    found = files.map(dict(zip(table["file"], values, strict=True))).astype(float)
    if found.isna().all():
        raise PedfracError(
            f"{path}: labels none of the {len(files)} images of the window; `file` must be as in "
            "the scores"
        )
    strange = table.loc[~table["file"].isin(set(files)), "file"]
    if len(strange):
        few = ", ".join(strange.head(3))
        logger.warning(
            "%s: %d of %d rows fit no image of the window, such as %s",
            *(path, len(strange), len(table), few),
        )
    return found
