"""Tables that people bring: ages, labels, splits, lists of images.

A reader that guesses moves cells: pandas takes a first column for names of rows where a line ends
in a comma, and every age is lost without a word. Not here: dataset.csv, whose rows are judged one
by one (dataset_csv).
"""

import csv
import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from pedfrac.data.tables import as_table
from pedfrac.errors import PedfracError

logger = logging.getLogger(__name__)


def read_brought_table(
    path: Path, columns: Sequence[str], optional: Sequence[str] = ()
) -> pd.DataFrame:
    """Read columns of a CSV as text without outer blanks, indexed by the line that a row begins on.

    ``optional`` columns are read where they are there, all others are ignored. Cells that are empty
    at the end of a row are ignored, too. Raises PedfracError naming the line of a row that is
    longer or shorter than the header, and where the file is no CSV or lacks a column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = _header(path, next(reader, []), columns)
            wanted = {name: header.index(name) for name in (*columns, *optional) if name in header}
            rows = (
                [*(row[place] for place in wanted.values()), line]
                for line, row in _rows(path, reader, len(header))
            )
            table = as_table(rows, dict.fromkeys(wanted, "str") | {"line": "int64"})
    except OSError as error:
        raise PedfracError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise PedfracError(f"{path}: is not UTF-8 ({error}); save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise PedfracError(f"{path}: cannot be read as a table ({error})") from None
    if table.empty:
        raise PedfracError(f"{path}: holds no rows")
    return table.set_index("line")


def refuse_repeated(path: Path, table: pd.DataFrame, column: str) -> None:
    """Raise PedfracError where a cell of a column is there twice."""
    again = table.index[table[column].duplicated()]
    if len(again):
        line: Any = again[0]
        name = str(table.at[line, column])
        first = table.index[table[column] == name][0]
        raise PedfracError(f"{path} line {line}: {name} is listed twice, first on line {first}")


def match_names(
    names: Mapping[str, float], images: Sequence[str], source: str = "table"
) -> dict[str, float]:
    """Return the values of images by their paths, from values by names.

    A name is a file's stem, its name, or the end of its path (``b/1`` and ``b/1.png`` for
    ``a/b/1.png``); of several that fit an image the longest counts. Names that fit no image are
    counted in the log. Raises PedfracError where a name fits several images, since one of them
    would get another's value, where two names give an image different values, and where no name
    fits.
    """
    by_end: dict[str, list[str]] = {}
    for name in names:
        by_end.setdefault(PurePosixPath(name).name, []).append(name)
    found: dict[str, float] = {}
    fitting: dict[str, str] = {}
    for image in images:
        own = _name_of(PurePosixPath(image), by_end, names, source)
        if own is None:
            continue
        if (other := fitting.setdefault(own, image)) != image:
            raise PedfracError(
                f"{source}: {own} may be {other} or {image}; name images that are called alike by "
                "their path"
            )
        found[image] = names[own]
    if names and not found:
        raise PedfracError(
            f"{source}: none of {len(names)} names, such as {next(iter(names))}, is that of one of "
            f"the {len(images)} images, such as {images[0]}"
        )
    if strange := [name for name in names if name not in fitting]:
        logger.warning(
            "%s: %d of %d names fit no image (%s%s)",
            *(source, len(strange), len(names), ", ".join(strange[:3])),
            " …" if len(strange) > 3 else "",
        )
    return found


def _name_of(
    image: PurePosixPath, by_end: Mapping[str, list[str]], names: Mapping[str, float], source: str
) -> str | None:
    parts = image.parts
    candidates = [*by_end.get(image.name, ()), *by_end.get(image.stem, ())]
    fits = {
        name: len(own)
        for name in candidates
        if (own := PurePosixPath(name).parts)[:-1] == parts[len(parts) - len(own) : -1]
    }
    if not fits:
        return None
    longest = [name for name, length in fits.items() if length == max(fits.values())]
    if len({names[name] for name in longest}) > 1:
        raise PedfracError(f"{source}: {' and '.join(longest)} give {image} different values")
    return longest[0]


def _header(path: Path, cells: Sequence[str], columns: Sequence[str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    while header and not header[-1]:
        header.pop()
    missing = [name for name in columns if name not in header]
    if missing:
        found = ", ".join(map(repr, header)) or "none"
        hint = ""
        if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
            hint = "; cells must be separated by commas"
        elif near := difflib.get_close_matches(missing[0], header, n=1):
            hint = f"; is it {near[0]!r}?"
        raise PedfracError(f"{path}: column {', '.join(missing)} is missing, found {found}{hint}")
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise PedfracError(f"{path}: column {', '.join(twice)} is there twice")
    return header


def _rows(path: Path, reader: Any, width: int) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not empty with the line that it begins on."""
    start, ending = reader.line_num + 1, 0
    for cells in reader:
        row, line = [cell.strip() for cell in cells], start
        start = reader.line_num + 1
        if not any(row):
            continue
        if len(row) > width and not any(row[width:]):
            ending += 1
            row = row[:width]
        if len(row) != width:
            raise PedfracError(
                f"{path} line {line}: {len(row)} cells, but the header has {width} (a number is "
                "written 3.5, not 3,5; text with commas stands in quotes)"
            )
        yield line, row
    if ending:
        logger.warning("%s: %d rows end in a comma, which is ignored", path, ending)
