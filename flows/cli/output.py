"""How a command shows what it found: tables for people, or one JSON object."""

import json
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Column, Table

# tables keep their columns when stdout is a file or a pipe, which has no width of its own
# what it shows is data: brackets in a cell are no markup, :words: no pictures
out = Console(width=None if sys.stdout.isatty() else 160, markup=False, emoji=False)
TEXT = 12  # characters that a column of text or a heading is given at least


def print_result(result: dict[str, Any], as_json: bool, tables: Sequence[Table] = ()) -> None:
    """Print a result as one JSON object, or its tables and then its plain values by name."""
    if as_json:
        print(json.dumps(result, default=str))
        return
    for table in tables:
        if table.row_count:
            out.print(table if _fits(table) else _as_list(table))
    for name, value in result.items():
        if isinstance(value, str | int | float):
            out.print(f"{name}: {value}")


def as_table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    """Return rows as a table with the columns of the first one."""
    table = Table(title=title, title_justify="left")
    for name in rows[0] if rows else ():
        words = name.replace("_", " ")
        if all(isinstance(row[name], int | float | None) for row in rows):
            # a number that is cut short is another number: its heading gives way
            heading = textwrap.fill(words, TEXT, break_long_words=False)
            table.add_column(heading, justify="right", no_wrap=True)
        else:
            table.add_column(words, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    return table


def _fits(table: Table) -> bool:
    """Whether a table has room for its numbers, and some for each column of text."""
    return sum(map(_least, table.columns)) + len(table.columns) + 1 <= out.width


def _least(column: Column) -> int:
    """Return the characters that a column needs with the space at its sides."""
    lines = [line for cell in (column.header, *column.cells) for line in str(cell).splitlines()]
    most = max(map(len, lines), default=0)
    return 2 + (most if column.no_wrap else min(most, TEXT))


def _as_list(table: Table) -> str:
    """Return a table as lines ``column: value``, a blank one between rows."""
    names = [" ".join(str(column.header).split()) for column in table.columns]
    rows = zip(*(map(str, column.cells) for column in table.columns), strict=True)
    told = ["\n".join(map(": ".join, zip(names, row, strict=True))) for row in rows]
    return "\n\n".join([str(table.title), *told]) + "\n"


def _cell(value: Any) -> str:
    if value is None or value != value:  # NaN alone differs from itself
        return "–"
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)
