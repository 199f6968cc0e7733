"""A headless Chromium for the tests of pages, which fails a test on any error or on a request to another host.

The browser is the one in `GLASSNET_CHROMIUM`, or `chromium` on the path; without one these tests are skipped.
Playwright never installs one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("pytest_playwright", reason="browser tests need the package pytest-playwright")

from playwright.sync_api import BrowserContext, ConsoleMessage, Request

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
)


def is_local(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in {"file", "data", "blob", "about"} or parts.hostname == "127.0.0.1"


@pytest.fixture(scope="session")
def base_url() -> None:
    """Stand in for the plugin's own fixture, a method of session scope, about which pytest 9.2 warns."""


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    path = os.environ.get("GLASSNET_CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("no Chromium: put `chromium` on the path or name one in GLASSNET_CHROMIUM")
    return {**browser_type_launch_args, "executable_path": path, "args": list(FLAGS)}


@pytest.fixture(scope="session")
def browser_context_args(browser_context_args: dict[str, Any]) -> dict[str, Any]:
    return {**browser_context_args, "reduced_motion": "reduce", "viewport": {"width": 1200, "height": 900}}


@pytest.fixture(autouse=True)
def guard(context: BrowserContext) -> Iterator[list[str]]:
    """Collect what no page may do, and fail the test that did it."""
    complaints: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            complaints.append(f"console {message.type}: {message.text}")

    def watch(request: Request) -> None:
        if not is_local(request.url):
            complaints.append(f"request to another host: {request.url}")

    context.on("console", hear)
    context.on("weberror", lambda error: complaints.append(f"page error: {error.error}"))
    context.on("request", watch)
    yield complaints
    assert not complaints, "\n".join(complaints)
