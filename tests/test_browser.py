"""The pages of a report and of `explain` in a real browser, see `browser_helpers`."""

import base64
import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from browser_helpers import DESKTOP, PHONE, find, load, shot, sideways
from report_helpers import HOSTILE, a_report

from keras_resnet import reports
from keras_resnet.commands.explain.page import make_page
from keras_resnet.explain.gallery import ClassShots, Gallery, Neighbor
from keras_resnet.printing import printable

pytestmark = pytest.mark.ci


@pytest.fixture(scope="module")
def report_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report #1 é.html"
    reports.write(a_report(), path)
    return path


@pytest.fixture(scope="module")
def gallery_file(tmp_path_factory):
    report = a_report()
    neighbor = Neighbor("train/<i>.jpg", HOSTILE[0], 0.9, np.zeros((32, 32, 3), np.uint8))
    shots = tuple(dataclasses.replace(shot, neighbors=(neighbor,) * 4) for shot in report.mistakes)
    classes = tuple(ClassShots(name, 9, 5, shots, shots, shots) for name in HOSTILE)
    found = Gallery(report.predictions, shots, classes, ("A note.",))
    path = tmp_path_factory.mktemp("gallery") / "index.html"
    path.write_text(make_page(found, "runs/<b>"), encoding="utf-8")
    return path


def visible(browser):
    return [one.get_attribute("id") for one in find(browser, ".behind") if one.is_displayed()]


def address(element):
    return element.get_attribute("href").partition("#")[2]


def test_a_click_shows_the_images_behind_a_cell(browser, report_file):
    load(browser, report_file, DESKTOP)
    report = a_report()
    assert visible(browser) == []
    link = next(one for one in find(browser, "#matrix a") if address(one) == "cell-1-3")
    assert link.text == f"{report.matrix[1, 3]}"
    link.click()
    assert visible(browser) == ["cell-1-3"]
    assert link.get_attribute("aria-current") == "true"
    pictures = find(browser, "#cell-1-3 img")
    assert len(pictures) == len(report.cells[1, 3]) > 0
    assert all(one.get_property("naturalWidth") == 16 for one in pictures)
    alt = pictures[0].get_attribute("alt")
    assert alt.endswith(f"{printable(HOSTILE[1])} taken for {printable(HOSTILE[3])}")
    shot(browser, "desktop")
    find(browser, "#cell-1-3 .back")[0].click()
    assert visible(browser) == []
    assert browser.switch_to.active_element == link
    assert browser.get_log("browser") == []


def test_the_keyboard_does_the_same(browser, report_file):
    from selenium.webdriver.common.keys import Keys

    load(browser, report_file, DESKTOP)
    report = a_report()
    browser.execute_script("document.querySelector('#matrix a').focus()")
    assert address(browser.switch_to.active_element) == "cell-0-0"
    filled = np.argwhere(report.matrix > 0).tolist()
    right = min(column for row, column in filled if row == 0 and column > 0)
    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert address(browser.switch_to.active_element) == f"cell-0-{right}"
    below = min(row for row, column in filled if column == right and row > 0)
    browser.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert address(browser.switch_to.active_element) == f"cell-{below}-{right}"
    browser.switch_to.active_element.send_keys(Keys.ARROW_UP)
    browser.switch_to.active_element.send_keys(Keys.ARROW_UP)  # stays at the edge
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert visible(browser) == [f"cell-0-{right}"]
    assert browser.switch_to.active_element.get_attribute("id") == f"cell-0-{right}"
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert visible(browser) == []
    assert address(browser.switch_to.active_element) == f"cell-0-{right}"


def test_without_script_all_is_there(browser, report_file):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        load(browser, report_file, DESKTOP)
        next(one for one in find(browser, "#matrix a") if address(one) == "cell-1-3").click()
        assert visible(browser) == ["cell-1-3"]
        assert len(find(browser, "h2")) == 9
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("page", ["report_file", "gallery_file"])
def test_on_a_phone_nothing_scrolls_sideways(browser, page, dark, request):
    load(browser, request.getfixturevalue(page), PHONE, dark)
    for details in find(browser, "summary"):
        browser.execute_script("arguments[0].parentNode.open = true", details)
    assert sideways(browser) == [0, []]
    shot(browser, f"phone-{page.partition('_')[0]}-{'dark' if dark else 'light'}")


def test_on_a_phone_settings_say_all_without_scrolling(browser, report_file):
    load(browser, report_file, PHONE)
    widths = browser.execute_script(
        """
        return Array.from(document.querySelectorAll(".settings .scroll")).map(function (one) {
          return [one.scrollWidth, one.clientWidth];
        });
        """
    )
    assert widths
    assert all(wide <= seen for wide, seen in widths)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("page", ["report_file", "gallery_file"])
def test_text_can_be_read(browser, page, dark, request):
    """Contrast of at least 4.5 (WCAG 2.1, 1.4.3) of all text that stands on a plain color."""
    load(browser, request.getfixturevalue(page), DESKTOP, dark)
    faint = browser.execute_script(
        """
        function parse(color) { return (color.match(/[\\d.]+/g) || []).map(Number); }
        function light(rgb) {
          var parts = rgb.slice(0, 3).map(function (one) {
            one /= 255;
            return one <= 0.03928 ? one / 12.92 : Math.pow((one + 0.055) / 1.055, 2.4);
          });
          return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
        }
        var dark = matchMedia("(prefers-color-scheme: dark)").matches;
        function behind(element) {
          var layers = [];
          for (; element; element = element.parentElement) {
            layers.push(parse(getComputedStyle(element).backgroundColor));
          }
          var color = dark ? [18, 18, 18] : [255, 255, 255];
          layers.reverse().forEach(function (layer) {
            var alpha = layer.length > 3 ? layer[3] : 1;
            color = color.map(function (one, i) { return one * (1 - alpha) + layer[i] * alpha; });
          });
          return color;
        }
        return Array.from(document.querySelectorAll("main *")).filter(function (element) {
          return Array.from(element.childNodes).some(function (node) {
            return node.nodeType === 3 && node.textContent.trim();
          });
        }).map(function (element) {
          var style = getComputedStyle(element);
          var own = element.closest("svg") ? style.fill : style.color;
          var two = [light(parse(own)), light(behind(element))].sort();
          return [(two[1] + 0.05) / (two[0] + 0.05), element.outerHTML.slice(0, 90)];
        }).filter(function (found) { return found[0] < 4.5; });
        """
    )
    assert faint == []


def test_it_can_be_printed(browser, report_file):
    load(browser, report_file, DESKTOP)
    printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert printed.startswith(b"%PDF")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    wrong = {f"cell-{label}-{taken}" for label, taken in a_report().cells if label != taken}
    assert set(visible(browser)) == wrong
    if folder := os.environ.get("KERAS_RESNET_SCREENSHOTS"):
        Path(folder, "report.pdf").write_bytes(printed)


def test_the_page_of_explain_opens(browser, gallery_file):
    load(browser, gallery_file, DESKTOP)
    assert find(browser, "h1")[0].text == "What runs/<b> looks at"
    headings = [one.text for one in find(browser, "h3")]
    assert headings == [printable(name) for name in HOSTILE]
    assert all(one.get_property("naturalWidth") > 0 for one in find(browser, "img"))
    shot(browser, "explain")
