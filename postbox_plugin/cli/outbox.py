"""``postbox outbox``: the clicks that wait, and those that no notifier took."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from postbox_plugin.cli.options import AsJson, Config, read_settings
from postbox_plugin.cli.output import Bar, ago, print_json, print_table

if TYPE_CHECKING:
    from postbox_plugin.outbox import Administration, NotifierStatus

__all__ = ["app"]

app: Final = typer.Typer(name="outbox", no_args_is_help=True)

OneNotifier = Annotated[str | None, typer.Argument(metavar="NOTIFIER", help="One notifier; all if not given.")]


@app.callback()
def _group() -> None:
    """See to the clicks that wait.

    Works whether the service runs or not.
    """


@app.command()
def status(as_json: AsJson = False, config: Config = None) -> None:
    """Show how each notifier is doing.

    \b
    Example:
      postbox outbox status
    """
    found = _outbox(config).status()
    if as_json:
        print_json(found)
        return
    columns = ("notifier", "state", "waiting", "retrying", "oldest", "dead", "last error")
    rows = (
        (one.name, _state(one), one.waiting, one.retrying, ago(one.oldest), one.dead, _trouble(one)) for one in found
    )
    print_table(columns, rows)


@app.command("list")
def list_clicks(
    notifier: OneNotifier = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The most to list.")] = 100,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """List clicks that were not taken: dead letters first, then those being retried, then those waiting.

    \b
    Example:
      postbox outbox list webhook --limit 20
    """
    found = _outbox(config).list(notifier, limit=limit)
    if as_json:
        print_json(found)
        return
    rows = (
        (
            one.notifier,
            one.event_id,
            one.state,
            _moment(one.at),
            one.tries,
            _moment(one.due) if one.due else "",
            one.error,
        )
        for one in found
    )
    print_table(("notifier", "event", "state", "clicked", "tries", "due", "last error"), rows)


@app.command()
def retry(notifier: OneNotifier = None, config: Config = None) -> None:
    """Try dead letters, and what waits for its next try, again now.

    \b
    Example:
      postbox outbox retry webhook
    """
    outbox = _outbox(config)
    with Bar("clicks to try again") as bar:
        if sys.stderr.isatty():
            bar.begin(sum(one.dead + one.retrying for one in outbox.status() if notifier in (None, one.name)))
        count = outbox.retry(notifier, advance=bar.advance)
    typer.echo(f"clicks that are tried again: {count}")


@app.command()
def resume(
    notifier: Annotated[str, typer.Argument(metavar="NOTIFIER", help="The notifier.")], config: Config = None
) -> None:
    """Start a paused notifier again, for example a webhook that answered 410.

    \b
    Example:
      postbox outbox resume webhook
    """
    was_paused = _outbox(config).resume(notifier)
    typer.echo(f"{notifier} goes on" if was_paused else f"{notifier} was not paused")


@app.command()
def purge(
    notifier: OneNotifier = None,
    recipient: Annotated[
        str | None,
        typer.Option(
            "--recipient", "-r", metavar="ADDRESS", help="Erase the clicks on mails to this address, for all notifiers."
        ),
    ] = None,
    dead: Annotated[bool, typer.Option("--dead", help="Only dead letters.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Everything that waits, for all notifiers.")] = False,
    config: Config = None,
) -> None:
    """Drop clicks without delivering them. There is no way back.

    \b
    Examples:
      postbox outbox purge webhook --dead
      postbox outbox purge --recipient anna@example.com
    """
    if recipient is not None and (notifier is not None or dead or everything):
        raise typer.BadParameter("erases for all notifiers: give nothing else with it", param_hint="--recipient")
    if recipient is None and notifier is None and not dead and not everything:
        raise typer.BadParameter("say what to drop: a notifier, --recipient, --dead or --all")
    if everything and (notifier is not None or dead):
        raise typer.BadParameter("drops everything: give nothing else with it", param_hint="--all")
    dropped = _outbox(config).purge(notifier, recipient=recipient, dead_only=dead)
    typer.echo(f"clicks dropped: {dropped}")


def _outbox(config: Path | None) -> Administration:
    from postbox_plugin.outbox import Administration  # noqa: PLC0415 - no other command needs a database

    return Administration(Path(read_settings(config).spool))


def _state(one: NotifierStatus) -> str:
    return "paused" if one.paused is not None else "parked" if one.parked else "active"


def _trouble(one: NotifierStatus) -> str:
    if one.paused:
        return one.paused
    return f"{one.error} ({ago(time.time() - one.error_at)} ago)" if one.error else ""


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(sep=" ", timespec="seconds")
