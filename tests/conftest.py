"""What holds for every test: no skipping where everything must run, and no settings from outside."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import hypothesis
import pytest

from postbox_plugin.config import CONFIG_VARIABLE, VARIABLES

_NO_SKIPS = bool(os.environ.get("POSTBOX_NO_SKIPS"))

# No example database: it would be written into the checkout. No deadline: browser and servers share the cores.
hypothesis.settings.register_profile("postbox", database=None, deadline=None)
hypothesis.settings.load_profile("postbox")


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if _NO_SKIPS and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason}: this run was told that nothing may be skipped (POSTBOX_NO_SKIPS)"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skipped test fails where POSTBOX_NO_SKIPS says so."""
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, Any, pytest.CollectReport]:
    """A module that skips itself fails where POSTBOX_NO_SKIPS says so."""
    report: pytest.CollectReport = yield
    _fail_if_skipped(report)
    return report


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the machine that runs the tests reach none of them, nor any of their subprocesses."""
    for variable in (*VARIABLES, CONFIG_VARIABLE, "POSTBOX_DISABLED_PLUGINS"):
        monkeypatch.delenv(variable, raising=False)
