"""Pages in Markdown as a reader's program sees them: headings, tables and text."""

import re

from markdown_it import MarkdownIt


def parse(page):
    return MarkdownIt("commonmark").enable("table").parse(page)


def tables(page):
    """Return each table under its last heading: (heading, rows of cells as plain text)."""
    found, heading, tokens = [], "", parse(page)
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            heading = _plain(tokens[place + 1])
        elif token.type == "table_open":
            found.append((heading, []))
        elif token.type == "tr_open":
            found[-1][1].append([])
        elif token.type in ("th_open", "td_open"):
            found[-1][1][-1].append(_plain(tokens[place + 1]))
    return found


def table(page, heading, place=0):
    """Return the rows of a table under a heading."""
    return [rows for name, rows in tables(page) if name == heading][place]


def assert_whole(page):
    """Assert that nothing of a template is left, and that no table fell apart."""
    assert not re.search(r"\{[{%#]|[%#}]\}", page)
    assert not re.search(r"\b(None|Undefined|nan|inf)\b", re.sub(r"None[:.]", "", page))
    lines = [line for line in page.splitlines() if line.startswith("|")]
    drawn = sum(len(rows) + 1 for _, rows in tables(page))  # a line divides head and body
    assert drawn == len(lines)
    for _, rows in tables(page):
        assert all(any(row) for row in rows[1:])
        for line in rows:
            assert len(line) == len(rows[0])
    assert "\n\n\n\n" not in page


def _plain(token):
    return "".join(
        child.content for child in token.children or [] if child.type in ("text", "code_inline")
    )
