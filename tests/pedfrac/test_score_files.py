"""Tables of scores: which rows are found again, in which order."""

import pandas as pd
import pytest

from pedfrac.score_files import ScoreFile


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
