"""``postbox check``: is it all set up, up to the reader's browser?"""

from __future__ import annotations

import logging
import sys

import typer
from rich.console import Console
from rich.text import Text

from postbox_plugin.cli.checks import Finding, run_checks
from postbox_plugin.cli.options import Config, config_file
from postbox_plugin.cli.output import STYLES, shown

__all__ = ["check"]


def check(config: Config = None) -> None:
    """Check that everything is set up, up to the reader.

    Looks at the settings, the keys, the spool, the plugins and notifiers, and
    the links: for both schemes, a tracking link is opened at the domain of
    the settings, without making a click. Exits with 1 if one check failed.

    \b
    Example:
      postbox check --config /etc/postbox/postbox.toml
    """
    logging.getLogger("postbox.plugins").setLevel(logging.CRITICAL)  # what it would say is among the findings
    failed = False
    for finding in run_checks(config_file(config)):
        failed = failed or finding.state == "failed"
        _print(finding)
    if failed:
        raise typer.Exit(1)


def _print(finding: Finding) -> None:
    if not sys.stdout.isatty():
        typer.echo("\t".join(shown(text) for text in (finding.state, finding.check, finding.detail, finding.remedy)))
        return
    line = Text.assemble(
        (f"{finding.state:8}", STYLES[finding.state]), (f"{shown(finding.check)}: ", "bold"), shown(finding.detail)
    )
    if finding.remedy:
        line.append(f"\n        {shown(finding.remedy)}", "italic")
    Console().print(line)
