"""A real browser, for tests that look at what a reader sees."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

Browsing = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture
def browsing(tmp_path: Path) -> Browsing:
    """Opens a headless Chromium with a profile of its own: ``async with browsing() as context``."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs a browser: chromium is not installed")

    @asynccontextmanager
    async def open_browser(**options: Any) -> AsyncIterator[Any]:
        from playwright.async_api import async_playwright

        async with async_playwright() as playwright:
            context = await playwright.chromium.launch_persistent_context(
                tmp_path / "profile", executable_path=chromium, headless=True, args=FLAGS, **options
            )
            context.set_default_timeout(20_000)
            try:
                yield context
            finally:
                await context.close()

    return open_browser
