"""What is in the wheel, and that the tests run against it."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import postbox_plugin

CHECKOUT = Path(__file__).parents[2]

PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("packaging")
    source = folder / "source"
    source.mkdir()
    for name in ("postbox_plugin", "hooks", "pyproject.toml", "README.md", "LICENSE", "tests", "examples"):
        path = CHECKOUT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def read(wheel: zipfile.ZipFile, name: str) -> str:
    (found,) = (entry for entry in wheel.namelist() if entry.endswith(f".dist-info/{name}"))
    return wheel.read(found).decode()


def test_two_packages(wheel: zipfile.ZipFile) -> None:
    """The wheel installs two top-level packages, its own metadata, and nothing else."""
    version = PROJECT["project"]["version"]
    top = {name.partition("/")[0] for name in wheel.namelist()}
    assert top == {"postbox_plugin", "postbox_hooks", f"postbox_plugin-{version}.dist-info"}


def test_typed(wheel: zipfile.ZipFile) -> None:
    """Both packages say that they are typed."""
    assert {"postbox_plugin/py.typed", "postbox_hooks/py.typed"} <= set(wheel.namelist())


def test_everything_is_in_it(wheel: zipfile.ZipFile) -> None:
    """Whatever is in the packages' folders is in the wheel, data files included."""
    for folder in (CHECKOUT, CHECKOUT / "hooks"):
        for package in ("postbox_plugin", "postbox_hooks"):
            paths = (
                path for path in (folder / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts
            )
            missing = {path.relative_to(folder).as_posix() for path in paths} - set(wheel.namelist())
            assert missing == set()


def test_licence(wheel: zipfile.ZipFile) -> None:
    """The licence goes along."""
    assert "Apache License" in read(wheel, "licenses/LICENSE")


def test_entry_points(wheel: zipfile.ZipFile) -> None:
    """The command, and the groups in which shipped and foreign plugins are found alike."""
    found = configparser.ConfigParser(delimiters=("=",))
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read_string(read(wheel, "entry_points.txt"))
    assert found["console_scripts"]["postbox"] == "postbox_plugin.cli:main"
    assert {"machines", "mjml"} <= set(found["postbox"])
    assert {"leave-alone", "optouts"} <= set(found["postbox.optional"])
    assert {"log", "webhook"} <= set(found["postbox.notifiers"])
    assert {"demo", "relay"} <= set(found["postbox.commands"])


@pytest.mark.parametrize(
    "group",
    ["console_scripts", "postbox", "postbox.optional", "postbox.notifiers", "postbox.commands", "postbox.tables"],
)
def test_entry_points_load(group: str) -> None:
    """Every entry point of ours names something that is there."""
    ours = [point for point in entry_points(group=group) if point.dist and point.dist.name == "postbox-plugin"]
    assert ours
    for point in ours:
        assert callable(point.load()), point


def test_extras(wheel: zipfile.ZipFile) -> None:
    """Each extra that an error or the documentation names exists."""
    extras = {
        line.partition(": ")[2] for line in read(wheel, "METADATA").splitlines() if line.startswith("Provides-Extra")
    }
    assert {"webhook", "django", "mjml", "demo", "relay"} <= extras
    assert {"aiosmtplib", "fastapi-mail", "flask-mail", "flask-mailman"} <= extras
    assert {"anymail", "boto3", "emails"} <= extras


@pytest.mark.skipif(
    "TOX_ENV_NAME" not in os.environ and "POSTBOX_NO_SKIPS" not in os.environ, reason="tox installs the wheel"
)
def test_tests_run_against_the_wheel() -> None:
    """Under tox, neither a test nor a subprocess of one imports the checkout."""
    code = "import postbox_plugin, postbox_hooks; print(postbox_plugin.__file__, postbox_hooks.__file__)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for file in (postbox_plugin.__file__, *ran.stdout.split()):
        assert "site-packages" in Path(file).parts


def test_every_benchmark_is_run() -> None:
    """`tox -e bench` leaves out no benchmark."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(CHECKOUT / "tox.ini", encoding="utf-8")
    commands = config["testenv:bench"]["commands"]
    scripts = {path.name for path in (CHECKOUT / "tests" / "benchmarks").glob("bench_*.py")}
    assert {Path(line.split()[1]).name for line in commands.split("\n") if line} == scripts


SKIPPING = """
import pytest

def test_skips():
    pytest.skip("no browser")

@pytest.mark.skipif(True, reason="no broker")
def test_is_skipped():
    pass

@pytest.mark.xfail(reason="known")
def test_known():
    assert False
"""


@pytest.mark.parametrize(
    ("variable", "code", "closing"), [("", 0, "3 skipped, 1 xfailed in"), ("1", 1, "1 failed, 1 xfailed, 2 errors in")]
)
def test_nothing_is_skipped_in_a_full_run(tmp_path: Path, variable: str, code: int, closing: str) -> None:
    """Where POSTBOX_NO_SKIPS is set, a skipped test or module is a failure; what is expected to fail is not."""
    shutil.copy(CHECKOUT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.pytest]\n")
    (tmp_path / "test_one.py").write_text(SKIPPING)
    (tmp_path / "test_two.py").write_text('import pytest\npytest.importorskip("nothing_of_that_name")\n')
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--continue-on-collection-errors",
            str(tmp_path),
        ],
        cwd=tmp_path,
        env=os.environ | {"POSTBOX_NO_SKIPS": variable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout.splitlines()[-1].startswith(closing), ran.stdout
    assert ran.returncode == code
