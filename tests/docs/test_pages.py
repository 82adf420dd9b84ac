"""The documentation: links lead somewhere, the map of the packages is that of the contract."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deployments/*.md")])
CODE = sorted(
    path for room in ("pedfrac", "tasks", "flows") for path in (ROOT / room).rglob("*.py")
)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page):
    for target in LINK.findall(page.read_text()):
        if "://" in target or target.startswith("mailto:"):
            continue
        assert target == "settings.md" or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_pages_name_exist(page):
    if page.name == "CHANGELOG.md":
        return  # it names what is gone, too
    for name in re.findall(
        r"`((?:pedfrac|tasks|flows|tests|docker|docs)/[\w./]+)`", page.read_text()
    ):
        assert name == "docker/.env" or (ROOT / name).exists(), name  # .env is the operator's


def test_the_site_builds_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    settings = (tmp_path / "settings.html").read_text()
    assert "cohort.age_bounds" in settings and "promotion.gate.floors.sensitivity" in settings


def test_the_map_of_the_floors_is_that_of_the_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (floors,) = (one for one in contracts["contracts"] if one.get("containers") == ["pedfrac"])
    held = [sorted(re.split(r"\s*[|:]\s*", layer)) for layer in floors["layers"]]
    rows = re.findall(r"^\| \d+ \| ([^|]+) \|", (ROOT / "docs/architecture.md").read_text(), re.M)
    assert [sorted(re.findall(r"`(\w+)`", row)) for row in rows] == held
    packages = {
        path.stem for path in (ROOT / "pedfrac").glob("*") if not path.name.startswith("__")
    }
    assert packages == {name for floor in held for name in floor}


def test_the_readme_is_short():
    assert (ROOT / "README.md").stat().st_size <= 8000


def test_modules_and_functions_fit_a_reader():
    """No module over 450 lines, no function over 60."""
    long = [path for path in CODE if len(path.read_text().splitlines()) > 450]
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                long += [f"{path}: {node.name}"] if lines > 60 else []
    assert not long
