"""How a command shows what it found: tables for people, or one JSON object."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

# tables keep their columns when stdout is a file or a pipe, which has no width of its own
# what it shows is data: brackets in a cell are no markup, :words: no pictures
out = Console(width=None if sys.stdout.isatty() else 160, markup=False, emoji=False)


def print_result(result: dict[str, Any], as_json: bool, tables: Sequence[Table] = ()) -> None:
    """Print a result as one JSON object, or its tables and then its plain values by name."""
    if as_json:
        print(json.dumps(result, default=str))
        return
    for table in tables:
        if table.row_count:
            out.print(table)
    for name, value in result.items():
        if isinstance(value, str | int | float):
            out.print(f"{name}: {value}")


def as_table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    """Return rows as a table with the columns of the first one."""
    table = Table(title=title, title_justify="left")
    for name in rows[0] if rows else ():
        numeric = all(isinstance(row[name], int | float | None) for row in rows)
        table.add_column(name.replace("_", " "), justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    return table


def _cell(value: Any) -> str:
    if value is None or value != value:  # NaN alone differs from itself
        return "–"
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)
