"""Blocks: tables of findings whose names are not known beforehand, such as robustness.

Not here: any layout; a cell is an interval, a number or a text.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pedfrac.reporting.format import count, metric, yes_no

NOTES = ("note",)  # texts that stand below a table
FIRST = ("images", "patients", "fractured", "auroc", "sensitivity", "specificity")
LONG = 24  # longer lists are data for a drawing, not for a reader


@dataclass(frozen=True)
class Table:
    """Rows of cells below the names of their columns; the first cell of a row names it."""

    caption: str
    columns: list[str]
    rows: list[list[Any]]

    @property
    def texts(self) -> list[str]:
        """The columns that hold words."""
        by_column = zip(self.columns, zip(*self.rows, strict=True), strict=True)
        return [name for name, cells in by_column if any(isinstance(one, str) for one in cells)]


def is_interval(value: Any) -> bool:
    """Return whether a value is a metric with bounds."""
    return isinstance(value, Mapping) and {"value", "low", "high"} <= value.keys()


def facts_of(block: Mapping[str, Any]) -> list[str]:
    """Return the counts and words of a block, without those of its parts, as ``images 456``."""
    return [
        f"{metric(name)} {_in_words(value)}"
        for name, value in sorted(block.items(), key=_known_first)
        if isinstance(value, str | int | float) and value != "" and name not in NOTES
    ]


def tables_of(caption: str, block: Mapping[str, Any] | None) -> list[Table]:
    """Return the intervals of a block of findings as tables, and then its parts.

    Parts that hold only cells are rows of one table; a list of dicts is a table of its own.
    """
    block = block or {}
    own = [[metric(name), value] for name, value in block.items() if is_interval(value)]
    rows = [{"part": metric(name), **part} for name, part in block.items() if _is_row(part)]
    found = [Table(caption, ["Metric", "Value"], own)] if own else []
    if rows:
        found.append(table_of(f"{caption}: each part", rows, ("part", *FIRST)))
    return found + [
        table
        for name, part in block.items()
        for table in _inner(f"{caption}: {metric(name)}", part)
    ]


def notes_of(block: Mapping[str, Any]) -> list[str]:
    """Return each note of a block and its parts once, in the order of their names."""
    found = [str(block[name]) for name in NOTES if block.get(name)]
    for part in block.values():
        inner = part if isinstance(part, list) else [part]
        found += [note for one in inner if isinstance(one, Mapping) for note in notes_of(one)]
    return list(dict.fromkeys(found))


def table_of(caption: str, rows: Sequence[Mapping[str, Any]], first: Sequence[str]) -> Table:
    """Return one table of dicts, with a column for each name; those of ``first`` come first."""
    flat = [dict(_leaves("", row)) for row in rows]
    named = {metric(name): None for name in first}
    found = dict.fromkeys(name for row in flat for name in row)
    columns = [name for name in named if name in found]
    columns += [name for name in found if name not in named]
    return Table(caption, columns, [[row.get(name) for name in columns] for row in flat])


def _is_row(part: Any) -> bool:
    """Return whether a part is a dict of cells, or of dicts of cells, such as a change."""
    if not isinstance(part, Mapping) or is_interval(part) or not part:
        return False
    deeper = [one for one in part.values() if isinstance(one, Mapping) and not is_interval(one)]
    lists = [one for one in part.values() if isinstance(one, list) and not _is_cell(one)]
    return not lists and all(_is_cell(one) for inner in deeper for one in inner.values())


def _inner(caption: str, part: Any) -> list[Table]:
    if isinstance(part, Mapping) and not is_interval(part) and not _is_row(part):
        return tables_of(caption, part)
    if isinstance(part, list) and part and all(isinstance(one, Mapping) for one in part):
        return [table_of(caption, part, ("name", "group", "strength", "unit", *FIRST))]
    return []


def _leaves(prefix: str, block: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in block.items():
        title = f"{prefix} {metric(name)}".strip()
        if name in NOTES:
            continue
        if _is_cell(value):
            yield title, value
        elif isinstance(value, Mapping):
            yield from _leaves(title, value)


def _is_cell(value: Any) -> bool:
    if isinstance(value, Sequence) and not isinstance(value, str):
        plain = all(isinstance(one, str | int | float) for one in value)
        return bool(value) and plain and len(value) <= LONG
    return value is not None and (is_interval(value) or not isinstance(value, Mapping))


def _known_first(item: tuple[str, Any]) -> tuple[int, str]:
    name = item[0]
    return (FIRST.index(name) if name in FIRST else len(FIRST), name)


def _in_words(value: str | int | float) -> str:
    if isinstance(value, bool):
        return yes_no(value)
    return value if isinstance(value, str) else count(value)
