"""Tables and values as a terminal shows them: as they are, and numbers never cut short."""

import pytest
from rich.console import Console

from flows.cli import output

ROWS = [
    {"group": "[bold]0-1.5y[/] :smile:", "images": 123456, "average_precision": 0.123, "note": "é"},
    {"group": "5-10y", "images": None, "average_precision": float("nan"), "note": "a " * 40},
]


def shown(monkeypatch, capsys, width: int) -> str:
    console = Console(width=width, markup=False, emoji=False, highlight=False)
    monkeypatch.setattr(output, "out", console)
    output.print_result({"path": "/data/[red]a[/]"}, False, [output.as_table("T [x]", ROWS)])
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [20, 40, 60, 160])
def test_numbers_and_brackets_stand_in_full_at_any_width(monkeypatch, capsys, width):
    text = shown(monkeypatch, capsys, width)
    assert "123456" in text and "0.123" in text and "…" not in text
    together = "".join(text.split())
    assert "T[x]" in together and "path:/data/[red]a[/]" in together
    assert "[bold]0" in together and "smile:" in together
    assert max(map(len, text.splitlines())) <= width


def test_a_narrow_terminal_gets_a_line_for_each_value(monkeypatch, capsys):
    assert "images: 123456\naverage precision: 0.123\n" in shown(monkeypatch, capsys, 40)
    assert "┃" in shown(monkeypatch, capsys, 80)


def test_the_console_of_commands_takes_cells_as_they_are(capsys):
    with output.out.capture() as captured:
        output.out.print(output.as_table("T", ROWS))
    assert "[bold]0-1.5y[/] :smile:" in captured.get()
