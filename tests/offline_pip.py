"""pip for tests that follow a text without a network: it "installs" into a virtual environment what is installed here,
and refuses what is not: ``offline_pip.py VENV install ".[extra]" NAME``.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from importlib.metadata import metadata, version
from pathlib import Path

PROGRAM = """\
#!{python}
from postbox_plugin.cli import main
main()
"""


def check(requirement: str) -> None:
    """Fail where a requirement names what pip would not find."""
    match = re.fullmatch(r"([\w.-]+)(?:\[([\w,-]+)\])?", requirement)
    assert match, f"{requirement} is no requirement"
    name = "postbox-plugin" if match[1] == "." else match[1]
    version(name)
    unknown = set((match[2] or "").split(",")) - {"", *(metadata(name).get_all("Provides-Extra") or ())}
    assert not unknown, f"{name} has no extra {unknown}"


def install(folder: Path) -> None:
    """Give a virtual environment what the one of this interpreter has, and the command ``postbox``."""
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "offline.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    program = folder / "bin" / "postbox"
    program.write_text(PROGRAM.format(python=folder.absolute() / "bin" / "python"))
    program.chmod(0o755)


if __name__ == "__main__":
    assert sys.argv[2] == "install", sys.argv
    for given in sys.argv[3:]:
        check(given)
    install(Path(sys.argv[1]))
