"""What importing the package does: nothing that anybody would notice."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import postbox_plugin

PACKAGE = Path(postbox_plugin.__file__).parent

HEAVY = {
    "tornado",
    "flanker",
    "ply",
    "django",
    "flask",
    "mjml",
    "httpx",
    "aiohttp",
    "aiosmtpd",
    "aiosmtplib",
    "sqlite3",
    "typer",
    "rich",
}

LOADED = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"

FIRST_SEND = """
from postbox_plugin import Postbox, Settings, new_key
postbox = Postbox(Settings(domain="click.example.com", keys=[new_key()], strict=True))
sent = postbox.before_send(
    b"From: Shop <shop@example.com>\\r\\nTo: Anna <anna@example.com>\\r\\nContent-Type: text/html\\r\\n\\r\\n"
    b'<a href="https://example.com/">x</a>\\r\\n'
)
assert b"https://click.example.com/c/" in sent, sent
"""


def python(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | environ,
        cwd="/",  # Python looks for modules in the current folder first
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_import_is_silent_and_light() -> None:
    """Importing prints nothing, warns of nothing, and loads no framework, no parser, no database."""
    ran = python("-W", "error", "-c", f"import postbox_plugin; {LOADED}")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.count("\n") == 1
    assert "postbox_plugin" in ran.stdout.split()
    assert HEAVY & set(ran.stdout.split()) == set()


def test_making_a_postbox_loads_nothing_more() -> None:
    """Neither settings nor a Postbox load a framework, parser or database."""
    make = 'postbox_plugin.Postbox(postbox_plugin.Settings(domain="c.example", keys=[postbox_plugin.new_key()]))'
    ran = python("-W", "error", "-c", f"import postbox_plugin; {make}; {LOADED}")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert HEAVY & set(ran.stdout.split()) == set()


def test_first_send_is_silent() -> None:
    """flanker's first import, which warns and prints when left to itself, is not noticed."""
    ran = python("-W", "error", "-c", FIRST_SEND)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def copy_without_caches(folder: Path) -> Path:
    """An installation of our own: the package, and what PLY would write its tables beside."""
    for name in ("postbox_plugin", "flanker", "ply"):
        source = Path(importlib.import_module(name).__file__ or "").parent
        ignored = shutil.ignore_patterns("__pycache__", "parsetab.py", "lextab.py", "*_parsetab.py", "parser.out")
        shutil.copytree(source, folder / name, ignore=ignored)
    return folder


def test_read_only_installation(tmp_path: Path) -> None:
    """An installation that nobody may write to works, is silent, and is as it was afterwards."""
    site = copy_without_caches(tmp_path / "site")
    before = sorted(site.rglob("*"))
    for path in [*before, site]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        # Modes do not stop root, so that there only the comparison shows that nothing was written. Python's own caches
        # are left out of it by -B.
        code = f"import postbox_plugin; assert postbox_plugin.__file__.startswith({str(site)!r}); {FIRST_SEND}"
        ran = python("-B", "-W", "error", "-c", code, PYTHONPATH=str(site))
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
        assert sorted(site.rglob("*")) == before
    finally:
        for path in [site, *before]:
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_every_module_imports_in_silence() -> None:
    """No module prints, warns, or needs another one imported before it."""
    names = [info.name for info in pkgutil.walk_packages([str(PACKAGE)], "postbox_plugin.")]
    for order in (names, names[::-1]):
        ran = python("-W", "error", "-c", "".join(f"import {name}\n" for name in order))
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_public_names() -> None:
    """The package exports what it says it does, and what the documentation promises."""
    promised = [
        "Postbox",
        "Settings",
        "Mail",
        "Link",
        "OpenedLink",
        "Report",
        "Click",
        "Verdict",
        "hookimpl",
        "hookspecs",
        "new_key",
    ]
    assert sorted(postbox_plugin.__all__) == sorted([*promised, "PostboxError", "InvalidToken"])
    public = {name for name in vars(postbox_plugin) if not name.startswith("_")}
    modules = {info.name for info in pkgutil.iter_modules([str(PACKAGE)])}
    assert public - modules - set(postbox_plugin.__all__) == set()


@pytest.mark.parametrize("name", postbox_plugin.__all__)
def test_public_names_are_documented(name: str) -> None:
    """Every public name says what it is."""
    assert (getattr(postbox_plugin, name).__doc__ or "").strip()
