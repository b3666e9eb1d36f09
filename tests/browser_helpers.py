"""A real browser for the tests of pages: Chromium, without a screen.

Where there is none they are skipped, except under KERAS_RESNET_BROWSER=required, as `.ci/run` has
it. Screenshots are written to KERAS_RESNET_SCREENSHOTS, if that names a folder.
"""

import base64
import os
import shutil
from pathlib import Path

import pytest

PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
DESKTOP = {"width": 1200, "height": 900, "deviceScaleFactor": 1, "mobile": False}
OPTIONS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run
    --disable-background-networking --disable-component-update --disable-sync"""


def missing(what):
    if os.environ.get("KERAS_RESNET_BROWSER") == "required":
        pytest.fail(f"{what} is missing, and KERAS_RESNET_BROWSER=required asks for a browser")
    pytest.skip(f"without {what}")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    try:
        from selenium import webdriver
    except ImportError:
        missing("selenium")
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    program, driver = next(filter(None, found), None), shutil.which("chromedriver")
    if program is None or driver is None:
        missing("chromium, or chromedriver,")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for option in (*OPTIONS.split(), f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


def load(browser, path, size, dark=False):
    """Opens a file or an address at the size of a screen; of errors it must say nothing."""
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": scheme})
    browser.get("about:blank")
    browser.get(path if isinstance(path, str) else path.as_uri())
    said = browser.get_log("browser")
    assert said == [], said


def shot(browser, name):
    folder = os.environ.get("KERAS_RESNET_SCREENSHOTS")
    picture = base64.b64decode(
        browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})["data"]
    )
    assert len(picture) > 10_000
    if folder:
        Path(folder, f"{name}.png").write_bytes(picture)


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def sideways(browser):
    """How far the page can be scrolled sideways, and what is wider than it."""
    return browser.execute_script(
        """
        var width = document.documentElement.clientWidth;
        var wide = Array.from(document.querySelectorAll("main *")).filter(function (element) {
          return element.getBoundingClientRect().right > width + 1 && !element.closest(".scroll")
            && !element.closest("svg") && element.getBoundingClientRect().width > 0;
        }).map(function (element) { return element.outerHTML.slice(0, 100); });
        return [document.documentElement.scrollWidth - width, wide];
        """
    )
