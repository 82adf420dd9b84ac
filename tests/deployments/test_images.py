"""What the images are built from, and the check that ends a build in which names collide."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
ROOMS = [name.removesuffix("*") for name in PACKAGES]


def install(project: Path, target: Path) -> None:
    """Build the wheel of a project and unpack it, which is all that installing one is."""
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", build, str(project)], cwd=project, check=True, capture_output=True
    )
    (wheel,) = project.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(target)


def check_names(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, str(ROOT / "docker/check_names.py"), *ROOMS],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which our wheel alone is installed."""
    project = tmp_path_factory.mktemp("project")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, project)
    for room in ROOMS:
        shutil.copytree(ROOT / room, project / room, ignore=shutil.ignore_patterns("__pycache__"))
    target = tmp_path_factory.mktemp("installed")
    install(project, target)
    return target


def test_our_wheel_alone_passes_the_check(installed):
    done = check_names("-S", PYTHONPATH=str(installed))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_distribution_with_one_of_our_names_is_found(installed, tmp_path):
    (tmp_path / "stranger/tasks").mkdir(parents=True)
    (tmp_path / "stranger/tasks/queue.py").touch()
    (tmp_path / "stranger/pyproject.toml").write_text(
        '[project]\nname = "stranger"\nversion = "1"\n[tool.setuptools]\npackages = ["tasks"]\n'
    )
    shutil.copytree(installed, tmp_path / "both")
    install(tmp_path / "stranger", tmp_path / "both")
    done = check_names("-S", PYTHONPATH=str(tmp_path / "both"))
    assert done.returncode == 1
    assert done.stderr == "tasks: belongs to stranger too\n"


def test_an_editable_installation_does_not_pass():
    # the environment of the tests is one; a path would show it the sources' own metadata
    done = check_names(PYTHONPATH="")
    assert done.returncode == 1
    assert "flows: is imported from" in done.stderr


def test_all_that_the_images_copy_is_there_and_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    lines = (ROOT / "docker/Dockerfile").read_text().splitlines()
    copies = [line.split()[1:-1] for line in lines if line.startswith("COPY ")]
    sources = {source for copy in copies if not copy[0].startswith("--from") for source in copy}
    assert set(ROOMS) <= sources
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignored
