"""A headless Chromium for tests, as the system has it; tests that need one are skipped where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

DESKTOP, PHONE = (1280, 900), (390, 844)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="there is no Chromium with its driver: apt-get install chromium chromium-driver"
)


@contextmanager
def browser(size: tuple[int, int] = DESKTOP, theme: str = "light") -> Iterator[webdriver.Chrome]:
    """A window of ``size`` (width, height) whose system theme is ``light`` or ``dark``. It reaches no other machine."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    width, height = size
    for argument in (
        "--headless=new",
        "--no-sandbox",  # root has none, in containers
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--window-size={width},{height}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    try:
        resize(driver, size)
        scheme = {"name": "prefers-color-scheme", "value": theme}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        yield driver
    finally:
        driver.quit()


def resize(driver: webdriver.Chrome, size: tuple[int, int]) -> None:
    """Give the page this many pixels; narrow ones are a phone's."""
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def complaints(driver: webdriver.Chrome) -> list[str]:
    """What the console was told since it was last asked: errors, warnings, what the policy forbade."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def photograph(driver: webdriver.Chrome, name: str, folder: Path) -> Path:
    """A screenshot of the window, in ``$XSHOT_BENCH_SCREENSHOTS`` or else in ``folder``."""
    place = Path(os.environ.get("XSHOT_BENCH_SCREENSHOTS") or folder)
    place.mkdir(parents=True, exist_ok=True)
    driver.save_screenshot(str(place / f"{name}.png"))
    return place / f"{name}.png"
