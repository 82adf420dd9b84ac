"""Issues: every row, image or label that cannot be used, with its reason."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from pedfrac.data.schema import ISSUE_TYPES
from pedfrac.data.tables import as_table
from pedfrac.errors import printable


# ---- the ledger of faults ---------------------------------------------------------------------
class _Issue(NamedTuple):
    filestem: str
    line: int
    kind: str
    field: str
    value: str
    reason: str
    dropped: bool


def _issue(
    stem: str, line: Any, kind: str, name: str, value: object, reason: str, dropped: bool
) -> _Issue:
    texts = printable(stem), kind, name, printable(str(value)), printable(reason)
    return _Issue(texts[0], int(line), *texts[1:], dropped)


@dataclass
class IssueLog:
    """Collects issues, and knows by them which lines of dataset.csv are out."""

    stems: pd.Series  # line -> filestem as written
    issues: list[_Issue] = field(default_factory=list)

    def drop(self, line: Any, kind: str, name: str, value: object, reason: str) -> None:
        """Leave a row out of the table and record why."""
        stem = self.stems[line]
        self.issues.append(_issue(stem, line, kind, name, value, reason, True))

    def note(
        self, kind: str, name: str, value: object, reason: str, stem: str = "", line: Any = 0
    ) -> None:
        """Record an issue whose row stays in the table."""
        self.issues.append(_issue(stem, line, kind, name, value, reason, False))

    def keep(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of which no line is out."""
        return rows[~rows.index.isin({issue.line for issue in self.issues if issue.dropped})]

    def table(self) -> pd.DataFrame:
        """Return all issues as a table, sorted by file stem."""
        return as_table(sorted(self.issues), ISSUE_TYPES)


def count_values(values: pd.Series) -> dict[str, int]:
    """Return how often each value occurs."""
    return {str(name): int(count) for name, count in values.value_counts().sort_index().items()}


def examples_of(issues: pd.DataFrame) -> str:
    """Return the number of issues of each kind and the first three, in one line."""
    kinds = ", ".join(f"{kind} {count}" for kind, count in count_values(issues["kind"]).items())
    first = issues[issues["dropped"]].head(3)
    named = "; ".join(
        f"line {issue.line} {issue.field} {issue.value!r} {issue.reason}"
        for issue in first.itertuples()
    )
    return f"{kinds or 'the table holds none'}{' — first: ' if named else ''}{named}"


def repeated_values(values: pd.Series) -> pd.Series:
    """Return which values occur more than once."""
    # not duplicated(), which makes a Python object of each text
    counts = values.value_counts(sort=False)
    return values.isin(counts.index[counts > 1])
