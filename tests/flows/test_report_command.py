"""The command ``report`` makes the page of a run again from what the run left."""

from made_findings import make_config, make_findings
from made_pages import draw_montages
from typer.testing import CliRunner

from flows.cli.app import app
from pedfrac.reporting.page import write_report
from pedfrac.reporting.schema import write_findings


def test_a_page_made_again_is_the_same(tmp_path):
    found = make_findings(300, make_config(evaluation={"resamples": 20}))
    (tmp_path / "maps" / "5-10y").mkdir(parents=True)
    drawn = draw_montages(tmp_path, ["5-10y"])["5-10y"]
    drawn.rename(montage := tmp_path / "maps" / "5-10y" / "montage.png")
    write_report(tmp_path / "first.html", write_findings(tmp_path, found), {"5-10y": montage})

    metrics, maps, again = tmp_path / "metrics.json", tmp_path / "maps", tmp_path / "again.html"
    options = [str(metrics), "--montages", str(maps), "-o", str(again)]
    done = CliRunner().invoke(app, ["report", *options])
    assert done.exit_code == 0, done.output
    assert again.read_bytes() == (tmp_path / "first.html").read_bytes()
