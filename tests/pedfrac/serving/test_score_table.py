"""Tables of scores: which rows are found again, in which order."""

import pandas as pd
import pytest

from pedfrac.serving import score_table
from pedfrac.serving.score_table import ScoreFile, read_scores


def rows(**errors):
    return pd.DataFrame(
        {"key": list(errors), "error": list(errors.values()), "score": [0.5] * len(errors)}
    )


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".json"])
def test_a_score_comes_before_an_error_whichever_was_first(tmp_path, suffix):
    table = ScoreFile(tmp_path / f"scores{suffix}", ["score"])
    with table.opened():
        table.add(rows(a="", b="broken", c="broken"))
        table.add(rows(d="", e=""))
        table.finish(table.pieces(["a", "b", "c"]))
    with table.opened():
        assert table.scored() == {"a"}
        table.add(rows(b="", a="gone since"))
        assert table.scored() == {"a", "b"}
        (found,) = table.pieces(["c", "b", "a"])
    assert found["key"].tolist() == ["c", "b", "a"]
    assert found["error"].tolist() == ["broken", "", ""]
    assert found["score"].tolist() == [0.5] * 3


def test_nothing_is_scored_before_the_first_part(tmp_path):
    table = ScoreFile(tmp_path / "scores.csv", ["score"])
    with table.opened():
        assert table.scored() == frozenset()


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".json"])
def test_a_table_of_many_pieces_is_that_of_one(tmp_path, suffix, monkeypatch):
    written = []
    for size in (2, 100):
        monkeypatch.setattr(score_table, "PIECE", size)
        table = ScoreFile(tmp_path / f"{size}{suffix}", ["score"])
        with table.opened():
            table.add(rows(c="", a=""))
            table.finish(table.pieces(["a", "c"]))
        with table.opened():
            table.add(rows(e="", d="broken"))
            table.add(rows(b=""))
            table.finish(table.pieces(["a", "b", "c", "d", "e"]))
        written.append(table.path)
    few, one = (read_scores(path) for path in written)
    assert few["key"].tolist() == ["a", "b", "c", "d", "e"]
    pd.testing.assert_frame_equal(few, one, check_exact=True)
    if suffix != ".parquet":  # which has more groups of rows
        assert written[0].read_bytes() == written[1].read_bytes()


def test_a_part_does_not_take_the_place_of_an_earlier_one(tmp_path):
    table = ScoreFile(tmp_path / "scores.csv", ["score"])
    with table.opened():
        table.add(rows(a="broken", b=""))  # and killed
    with table.opened():
        table.add(rows(a="", c=""))
    with table.opened():
        (found,) = table.pieces(["a", "b", "c"])
    assert found["error"].tolist() == ["", "", ""]
