"""Scoring of any films with a bundle: films in, one row a film out, a bad film named and passed.

Not here: how films are found and read (films), scoring of packs in evaluation, which the bundle
does itself, and what scores look like on disk (score_files).
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pedfrac.age_groups import AgeGroups
from pedfrac.bundle.bundle import Bundle, bundle_digest
from pedfrac.bundle.calls import routed_calls
from pedfrac.bundle.embedding import watched
from pedfrac.bundle.reference_profile import WATCHED, has_profile, load_profile
from pedfrac.compute.devices import resolve_device
from pedfrac.compute.malloc import keep_freed_memory
from pedfrac.config.locations import DEFAULT_MODEL, artifact_root
from pedfrac.config.serving import PredictionConfig
from pedfrac.errors import PedfracError
from pedfrac.promotion.audit_log import CHAMPION, champions_bundle
from pedfrac.serving.images import Film, PreparedFilm, find_films, prepare_film, read_ages
from pedfrac.serving.observer import Observer
from pedfrac.serving.prefetch import prepared_batches
from pedfrac.serving.score_table import ScoreFile, local_output, read_scores
from pedfrac.storage.code_version import code_digest
from pedfrac.storage.files import content_hash
from pedfrac.storage.store import ArtifactStore

logger = logging.getLogger(__name__)
NUMBERS = ("age", "probability", "threshold", "generalist")
COLUMNS = (
    "file",
    "age",
    "laterality",
    "view",
    "age_group_recorded",
    "age_group_seen",
    "age_group_used",
    "routed_by",
    "probability",
    "threshold",
    "call",
    "network",
    "generalist",
    "markers",
    "note",
    "error",
)
Batch = Sequence[PreparedFilm]
Witness = Callable[[Batch, pd.DataFrame], None]
"""Told of each batch of films and its rows before they are kept."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """How many films have which call, and why some have no DICOM output, by film.

    ``calls``: films by call, "" where a film has no score. ``read`` returns the rows.
    """

    calls: Counter[str]
    without_dicom: dict[str, str]
    read: Callable[[], pd.DataFrame]

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One row a film (see ``predict``), read from the table if one was written."""
        return self.read()

    @property
    def failed(self) -> int:
        """Number of films without a score."""
        return self.calls[""]

    def in_words(self) -> str:
        """Return how many films were scored, and how many not."""
        count = self.calls.total()
        words = f"{count - self.failed} of {count} films scored"
        if self.failed:
            words += f", {self.failed} failed"
        if self.without_dicom:
            words += f", {len(self.without_dicom)} scored without DICOM output"
        return words


def predict_films(
    config: PredictionConfig, progress: Callable[[int, int], None] | None = None
) -> Prediction:
    """Find and score films, and write what is asked for.

    Raises PedfracError where the input is wrong or none of the films could be scored; a table is
    written then, too.
    """
    keep_freed_memory()
    if config.output:
        ScoreFile(Path(config.output), NUMBERS)  # refuses a wrong suffix before anything is done
    films = find_films(
        config.films,
        read_ages(Path(config.ages)) if config.ages else None,
        Path(config.labels) if config.labels else None,
    )
    folder = bundle_folder(config.bundle, config.artifacts)
    on_cpu = (config.runtime, config.device) == ("onnx", "auto")
    device = resolve_device("cpu" if on_cpu else config.device)
    bundle = Bundle.load(folder, device, config.runtime)
    options: Any = {"batch_size": config.batch_size, "progress": progress}
    refused: dict[str, str] = {}
    if not config.output:
        rows = predict(bundle, films, **options)
        done = Prediction(Counter(rows["call"]), refused, lambda: rows)
    else:
        digest = bundle_digest(folder)
        observer = Observer(load_profile(folder).basis if has_profile(folder) else None)
        if config.dicom_out:
            from pedfrac.serving.dicom_output import DicomFolder

            out = DicomFolder(Path(config.dicom_out), bundle, digest)
            options |= {"witness": out.write, "is_whole": out.holds}
            refused = out.refused
        with local_output(config.output) as path:
            calls = predict_to(path, bundle, digest, films, observer=observer, **options)
        numbers = [*NUMBERS, *observer.numbers]
        done = Prediction(calls, refused, partial(read_scores, config.output, numbers))
    if done.failed == len(films):
        raise PedfracError(
            f"none of {len(films)} films could be scored; the first: {done.rows['error'].iloc[0]}"
        )
    return done


def bundle_folder(bundle: str, artifacts: str) -> Path:
    """Return the folder of a bundle: a folder, a key in the store, or the champion's.

    ``champion`` is that of the model ``pedfrac``, ``champion/NAME`` of another, as the ledger of
    promotions has it. Raises PedfracError where there is none.
    """
    folder, (word, _, model) = Path(bundle), bundle.partition("/")
    if folder.exists() or word not in ("bundle", CHAMPION):
        return folder
    store = ArtifactStore(artifact_root(artifacts))
    key = champions_bundle(store, model or DEFAULT_MODEL) if word == CHAMPION else bundle
    return store.get(key).path


def predict(
    bundle: Bundle,
    films: Sequence[Film],
    *,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
    witness: Witness = lambda films, rows: None,
) -> pd.DataFrame:
    """Score films; return one row for each, in their order.

    Columns: ``file``, ``age`` (years), ``laterality`` and ``view`` (as a DICOM file states them),
    ``age_group_recorded``, ``age_group_seen``, ``age_group_used``, ``routed_by`` (age or film),
    ``probability`` of fracture (calibrated), ``threshold``, ``call`` (of CALLS; the last only where
    the bundle abstains), ``network`` (whose it is: the specialist's, the generalist's or the
    average of both), ``generalist`` (probability by the generalist alone), ``markers`` (removed,
    left for want of labels, or kept because the bundle learned with them), ``note`` (what a reader
    of the score should know), ``error`` (why a film has no score). NaN and empty text: no value.
    """
    parts = []
    for batch, rows in _scored(bundle, films, batch_size, progress, Observer(None)):
        witness(batch, rows)
        parts.append(rows)
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def predict_to(
    output: Path,
    bundle: Bundle,
    digest: str,
    films: Sequence[Film],
    *,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
    witness: Witness = lambda films, rows: None,
    is_whole: Callable[[str], bool] = lambda key: True,
    observer: Observer | None = None,
) -> Counter[str]:
    """Score films into a file (see ScoreFile), in their order; return how many have which call.

    A film that a finished or killed run left a score of is not scored again while film, age,
    labels, bundle (``digest``) and code are the same, and ``is_whole(key)``. Beside those of
    ``predict`` the columns are ``bundle``, the start of its digest, ``key``, the film's name in all
    else that is written of it, and what the ``observer`` keeps for monitoring.
    """
    observer = observer or Observer(None)
    table = ScoreFile(output, NUMBERS, observer.numbers)
    with table.opened():
        keys = _keys(films, digest)
        done = table.scored()
        missing = [key for key in keys if key not in done or not is_whole(key)]
        if len(missing) < len(films):
            logger.info("%d of %d films have their score", len(films) - len(missing), len(films))
        names = iter(missing)
        scored = _scored(bundle, [keys[key] for key in missing], batch_size, progress, observer)
        for batch, rows in scored:
            rows = rows.assign(bundle=digest[:16], key=list(islice(names, len(batch))))
            witness(batch, rows)
            table.add(rows)
        calls: Counter[str] = Counter()
        table.finish(_in_order(table, list(keys), observer, calls))
        return calls


def _in_order(
    table: ScoreFile, keys: Sequence[str], observer: Observer, calls: Counter[str]
) -> Iterator[pd.DataFrame]:
    """Yield the rows of a table, and count the calls."""
    columns, numbers = [*COLUMNS, "bundle", "key", *observer.columns], [*NUMBERS, *observer.numbers]
    types = dict.fromkeys(columns, "str") | dict.fromkeys(numbers, "float64")
    for rows in table.pieces(keys):
        calls.update(rows["call"])
        yield rows.reindex(columns=columns).astype(types)


def _keys(films: Sequence[Film], digest: str) -> dict[str, Film]:
    """Return the films by what tells one score from another."""
    made_by = [digest, code_digest()]
    return {content_hash([made_by, *_identity(film)])[:16]: film for film in films}


def _identity(film: Film) -> list[str]:
    labels = film.labels
    drawn = f"{labels} {labels.stat().st_mtime_ns}" if labels else ""
    return [str(film), film.version, repr(film.age), drawn]


def _scored(
    bundle: Bundle,
    films: Sequence[Film],
    batch_size: int,
    progress: Callable[[int, int], None] | None,
    observer: Observer,
) -> Iterator[tuple[Batch, pd.DataFrame]]:
    done, info = 0, bundle.info
    prepare = partial(prepare_film, fracture=info.fracture.preparation, age=info.age.preparation)
    # on cores that networks and decoders share, each would have the other wait for its threads
    ahead = 0 if bundle.device.type == "cpu" else 1
    for batch in prepared_batches(films, prepare, batch_size, ahead=ahead):
        for one in batch:
            if one.error:
                logger.warning("%s", one.error)
        yield batch, _score(bundle, batch, observer)
        done += len(batch)
        if progress:
            progress(done, len(films))


def _score(bundle: Bundle, batch: Batch, observer: Observer) -> pd.DataFrame:
    years, notes = zip(*(_routable_age(bundle.ages, one) for one in batch), strict=True)
    frame = pd.DataFrame(
        {
            "file": [str(one.film) for one in batch],
            "age": [one.age for one in batch],
            "laterality": [one.laterality for one in batch],
            "view": [one.view for one in batch],
            "note": notes,
            "error": [one.error for one in batch],
            "markers": [_marker_state(bundle, one.film) for one in batch],
        }
    )
    usable = frame.index[frame["error"] == ""]
    if len(usable):
        fracture, age = (
            np.stack([film for one in batch if (film := getattr(one, name)) is not None])
            for name in ("fracture_film", "age_film")
        )
        with watched(bundle.networks[WATCHED]) as features:
            ages = np.array(years)[usable]
            scores = bundle.score(fracture, age, ages, specialists="needed")
        scores.index = usable
        seen = observer.describe([batch[row] for row in usable], features).set_index(usable)
        frame = frame.join(routed_calls(bundle, scores)).join(seen)
    columns, numbers = [*COLUMNS, *observer.columns], [*NUMBERS, *observer.numbers]
    frame = frame.reindex(columns=columns)
    texts = [name for name in columns if name not in numbers]
    return (
        frame.astype(dict.fromkeys(numbers, float))
        .fillna(dict.fromkeys(texts, ""))
        .astype(dict.fromkeys(texts, str))
    )


def _routable_age(ages: AgeGroups, film: PreparedFilm) -> tuple[float, str]:
    """Return the age by which a film is routed, NaN where it tells no group, and the film's note.

    An age in whole years tells none where a bound lies within the year.
    """
    notes, age = [film.note] if film.note else [], film.age
    within = [bound for bound in ages.bounds if age < bound < age + 1]
    if film.whole_years and within:
        notes.append(f"age of {age:g} whole years may lie on either side of {within[0]:g}")
        age = float("nan")
    elif age == age and ages.assign([age])[0] < 0:
        notes.append(f"age outside {ages.bounds[0]:g}-{ages.bounds[-1]:g} years")
    return age, "; ".join(notes)


def _marker_state(bundle: Bundle, film: Film) -> str:
    if bundle.info.fracture.preparation.markers == "off":
        return "kept"
    return "removed" if film.labels else "left"
