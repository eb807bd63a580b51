"""A real browser, and a page of it that notes whatever it should not have done."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Browser, ConsoleMessage, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

NOTE_VIOLATIONS = """
  window.violations = [];
  document.addEventListener("securitypolicyviolation", (event) =>
    violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""

NOTE_SHIFTS = """
  window.shifted = 0;
  new PerformanceObserver((list) => {
    for (const shift of list.getEntries()) if (!shift.hadRecentInput) shifted += shift.value;
  }).observe({ type: "layout-shift", buffered: true });
"""

FAINT_TEXTS = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = numbers(colour).slice(0, 3).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const isSolid = (colour) => numbers(colour).length < 4 || numbers(colour)[3] > 0.99;
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (isSolid(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
    if (!own || !element.checkVisibility({ visibilityProperty: true })) continue;
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${element.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return found;
}"""
"""Texts whose contrast with what lies behind them is below 4.5 to 1."""


def executable() -> str:
    """Chromium or Chrome of this machine; the test is skipped where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("NOT TESTED, no Chromium here; on Debian: apt-get install chromium")
    return found


@asynccontextmanager
async def running_browser() -> AsyncIterator[Browser]:
    """Chromium without a window; the test is skipped where it or playwright is missing."""
    path = executable()
    api = pytest.importorskip("playwright.async_api", reason="NOT TESTED, playwright is not installed")
    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    async with api.async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield browser
        finally:
            await browser.close()


class Watched:
    """A page and what it did that it should not: errors, other hosts, violations of its own policy."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.errors: list[str] = []
        self.elsewhere: list[str] = []
        self.expected: tuple[str, ...] = ()
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self._note_host(request.url))

    async def open(self, path: str) -> None:
        """Go to one of our pages."""
        await self.page.goto(self.address + path)

    def expect_errors(self, *parts: str) -> None:
        """Errors that hold one of these are part of the test."""
        self.expected = parts

    async def complaints(self) -> list[str]:
        """All that was noted."""
        violations: list[str] = await self.page.evaluate("window.violations || []")
        unexpected = [e for e in self.errors if not any(part in e for part in self.expected)]
        return [*unexpected, *self.elsewhere, *violations]

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def _note_host(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https", "ws", "wss") and not url.startswith(self.address):
            self.elsewhere.append(f"request to {url}")


@asynccontextmanager
async def watched_page(browser: Browser, address: str, **options: Any) -> AsyncIterator[Watched]:
    """A page in a browser profile of its own; at its end it must have nothing to complain of."""
    context = await browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
    context.set_default_timeout(10_000)
    await context.add_init_script(NOTE_VIOLATIONS)
    await context.add_init_script(NOTE_SHIFTS)
    watched = Watched(await context.new_page(), address)
    yield watched
    complaints = await watched.complaints()
    assert not complaints, complaints
    await context.close()
