"""``/healthz`` and ``/metrics``, on an address of their own: how all the processes of a spool are doing.

Each process that owns an outbox file answers on its control socket; whoever serves the address (the one process, or
the parent of several) asks them all, and waits for none of them long.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from postbox_plugin.counts import Distribution
from postbox_plugin.errors import OutboxError
from postbox_plugin.outbox.control import Request, ask
from postbox_plugin.outbox.records import Health
from postbox_plugin.outbox.slot import slots
from postbox_plugin.service.listening import bind
from postbox_plugin.settings import Settings

__all__ = ["Admin", "examine"]

_log = logging.getLogger("postbox.service")

PATIENCE: Final = 2.0
"""Seconds that a process gets to say how it is doing."""


class Findings(NamedTuple):
    """How the processes of a spool are doing.

    :ivar healths: what each of them says.
    :ivar problems: what is wrong, for a person; empty where clicks can be kept and every process answers.
    """

    healths: Sequence[Health]
    problems: Sequence[str]


async def examine(spool: Path, workers: int) -> Findings:
    """Ask all processes of a spool how they are doing.

    :param spool: the folder of the outbox files.
    :param workers: how many processes there should be.
    """
    paths = [slot.socket for slot in slots(spool) if slot.socket.exists()]
    healths: list[Health] = []
    problems: list[str] = []
    asked = (asyncio.to_thread(ask, path, Request(do="health"), Health, timeout=PATIENCE) for path in paths)
    for path, answer in zip(paths, await asyncio.gather(*asked, return_exceptions=True), strict=True):
        if isinstance(answer, ConnectionError | FileNotFoundError):
            continue  # what a process left behind that was killed; another will take it over
        if isinstance(answer, OutboxError | OSError):
            problems.append(f"{path.stem}: {answer}")
        elif isinstance(answer, BaseException):
            raise answer
        else:
            healths.append(answer)
            if answer.error:
                problems.append(f"{path.stem} cannot write: {answer.error}; {answer.waiting} clicks wait in memory")
    if len(healths) < workers:
        problems.append(f"{len(healths)} of {workers} processes answer")
    return Findings(healths, problems)


class Admin:
    """Answers on ``[serve] admin``, if that is set.

    :param settings: the settings.
    :raises SettingsError: if the address cannot be listened on.
    """

    def __init__(self, settings: Settings) -> None:
        self._listening: Final = bind("http", settings.serve.admin, "admin") if settings.serve.admin else None
        known = {"spool": Path(settings.spool), "workers": settings.serve.workers}
        routes = [("/healthz", _Healthz, known), ("/metrics", _Metrics, known)]
        self._server: Final = HTTPServer(Application(routes, log_function=lambda _: None))

    def start(self) -> None:
        """Answer."""
        if self._listening is not None:
            self._server.add_sockets(self._listening.sockets)
            _log.info("%s/healthz and /metrics", self._listening.address)

    async def stop(self) -> None:
        """Answer no more."""
        self._server.stop()
        await self._server.close_all_connections()
        if self._listening is not None:
            self._listening.close()


class _Handler(RequestHandler):
    def initialize(self, spool: Path, workers: int) -> None:
        self._spool = spool
        self._workers = workers

    async def look(self) -> Findings:
        self.set_header("Cache-Control", "no-store")
        return await examine(self._spool, self._workers)


class _Healthz(_Handler):
    async def get(self) -> None:
        healths, problems = await self.look()
        self.set_status(503 if problems else 200)
        self.set_header("Content-Type", "application/json")
        self.write(
            msgspec.json.encode(
                {
                    "status": "failing" if problems else "ok",
                    "problems": problems,
                    "processes": [
                        {"outbox": health.slot, "error": health.error, "waitingForDisk": health.waiting}
                        for health in healths
                    ],
                    "notifiers": _merged(healths),
                }
            )
        )


class _Metrics(_Handler):
    async def get(self) -> None:
        findings = await self.look()
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Families(findings))
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.write(generate_latest(registry))


def _merged(healths: Sequence[Health]) -> dict[str, dict[str, object]]:
    """What waits for each notifier, over all processes."""
    merged: dict[str, dict[str, object]] = {}
    for health in healths:
        for one in health.notifiers:
            found = merged.setdefault(one.name, {"waiting": 0, "retrying": 0, "dead": 0, "paused": None})
            for name in ("waiting", "retrying", "dead"):
                found[name] = getattr(one, name) + found[name]
            found["paused"] = found["paused"] or one.paused
    return merged


class _Families(Collector):
    """The metrics of one look, each with the number of the process's outbox file as the label ``outbox``."""

    def __init__(self, findings: Findings) -> None:
        self._findings: Final = findings

    def collect(self) -> Iterator[Metric]:
        healths, problems = self._findings
        yield _gauge("postbox_build_info", "The version that runs.", ("version",), [((version("postbox-plugin"),), 1)])
        yield _gauge("postbox_healthy", "1 where /healthz says ok.", (), [((), int(not problems))])
        yield _gauge(
            "postbox_journal_writable",
            "1 where the last commit worked.",
            ("outbox",),
            [((str(health.slot),), int(not health.error)) for health in healths],
        )
        yield _gauge(
            "postbox_clicks_waiting_for_disk",
            "Clicks that wait in memory for the disk.",
            ("outbox",),
            [((str(health.slot),), health.waiting) for health in healths],
        )
        yield _counter(
            "postbox_clicks", "Clicks.", "verdict", [(health.slot, health.counts.clicks) for health in healths]
        )
        yield _counter(
            "postbox_responses",
            "Responses by HTTP status.",
            "status",
            [(health.slot, health.counts.responses) for health in healths],
        )
        yield _counter(
            "postbox_unknown_key_tokens",
            "Requests with a token whose key is not in the ring.",
            "",
            [(health.slot, {"": health.counts.unknown_keys}) for health in healths],
        )
        yield _counter(
            "postbox_clicks_lost",
            "Clicks that went to the logger postbox.lost.",
            "",
            [(health.slot, {"": health.counts.lost}) for health in healths],
        )
        commits = {health.slot: health.counts.commit_clicks for health in healths}
        yield _histogram("postbox_journal_commit_clicks", "Clicks in one commit of the journal.", commits)
        seconds = {health.slot: health.counts.commit_seconds for health in healths}
        yield _histogram("postbox_journal_commit_seconds", "Seconds of one commit of the journal.", seconds)
        yield from _of_notifiers(healths)


def _of_notifiers(healths: Sequence[Health]) -> Iterator[Metric]:
    deliveries = CounterMetricFamily(
        "postbox_deliveries", "Calls of notifiers.", labels=("outbox", "notifier", "outcome")
    )
    for health in healths:
        for name, outcomes in health.counts.deliveries.items():
            for outcome, count in outcomes.items():
                deliveries.add_metric((str(health.slot), name, outcome), count)
    yield deliveries
    for metric, field, help_text in (
        ("postbox_backlog_clicks", "waiting", "Clicks that were not tried yet."),
        ("postbox_retrying_clicks", "retrying", "Clicks that failed and will be tried again."),
        ("postbox_dead_letters", "dead", "Clicks that were given up."),
        ("postbox_backlog_age_seconds", "oldest", "Seconds since the oldest click that was not taken."),
        ("postbox_notifier_paused", "paused", "1 where the notifier waits for `postbox outbox resume`."),
    ):
        values = []
        for health in healths:
            for one in health.notifiers:
                value = one.paused is not None if field == "paused" else getattr(one, field)
                values.append(((str(health.slot), one.name), float(value)))
        yield _gauge(metric, help_text, ("outbox", "notifier"), values)


def _gauge(
    name: str, help_text: str, labels: Sequence[str], values: Sequence[tuple[Sequence[str], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help_text, labels=labels)
    for label_values, value in values:
        family.add_metric(label_values, value)
    return family


def _counter(
    name: str, help_text: str, label: str, values: Sequence[tuple[int, Mapping[str, int]]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, help_text, labels=("outbox", label) if label else ("outbox",))
    for slot, counts in values:
        for key, count in counts.items():
            family.add_metric((str(slot), key) if label else (str(slot),), count)
    return family


def _histogram(name: str, help_text: str, values: Mapping[int, Distribution]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, help_text, labels=("outbox",))
    for slot, found in values.items():
        cumulated = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*found.bounds, None), found.counts, strict=True):
            cumulated += count
            buckets.append(("+Inf" if bound is None else str(float(bound)), cumulated))
        family.add_metric((str(slot),), buckets, found.total)
    return family
