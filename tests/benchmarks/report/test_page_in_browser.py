"""The page as people use it, in headless Chromium: light and dark, desktop and phone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from browser import DESKTOP, PHONE, browser, complaints, needs_browser, photograph, resize
from PIL import Image
from reporting import ALERT, METHODS, Reported
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

pytestmark = needs_browser
TABS = ("leaderboard", "curves", "classes", "queries", "examples", "tests", "protocol", "cells")


@pytest.fixture(scope="module")
def opened(reported: Reported) -> Iterator[Chrome]:
    with browser() as driver:
        driver.get(reported.page.as_uri())
        yield driver


@pytest.fixture
def page(opened: Chrome, reported: Reported) -> Iterator[Chrome]:
    """The page, fresh; whatever a test did to it, the console must not have been told of an error."""
    opened.get(reported.page.as_uri())
    opened.execute_script("localStorage.clear()")
    opened.refresh()
    yield opened
    assert complaints(opened) == []


def at(driver: Chrome, name: str) -> WebElement:
    return driver.find_element(By.ID, name)


def open_tab(driver: Chrome, name: str) -> None:
    at(driver, f"tab-{name}").click()


def choose(driver: Chrome, name: str, text: str) -> None:
    Select(at(driver, name)).select_by_visible_text(text)


def shown(driver: Chrome, selector: str) -> list[WebElement]:
    return [element for element in driver.find_elements(By.CSS_SELECTOR, selector) if element.is_displayed()]


def column(driver: Chrome, header: str) -> list[str]:
    """A column of the leaderboard that is shown, from top to bottom."""
    (board,) = shown(driver, "#leaderboard table")
    headers = [th.text for th in board.find_elements(By.TAG_NAME, "th")]
    cells = board.find_elements(By.CSS_SELECTOR, f"tbody td:nth-child({headers.index(header) + 1})")
    return [cell.text for cell in cells]


def sort_by(driver: Chrome, header: str) -> None:
    next(b for b in shown(driver, "#leaderboard th button") if b.text == header).click()


def test_no_text_of_the_data_is_run(page: Chrome) -> None:
    for name in TABS:
        open_tab(page, name)
    with pytest.raises(NoAlertPresentException):
        _ = page.switch_to.alert.text
    open_tab(page, "examples")
    texts = [element.get_attribute("textContent") for element in shown(page, "#example-list .text")]
    assert any(ALERT in text for text in texts)
    assert not page.find_elements(By.CSS_SELECTOR, "img[onerror], #example-list script, main b b, #example-list i")


def test_nothing_is_asked_of_the_network(page: Chrome) -> None:
    for name in TABS:
        open_tab(page, name)
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert asked and {url.partition(":")[0] for url in asked} <= {"file", "data"}


def test_one_tab_is_open_at_a_time(page: Chrome) -> None:
    for name in TABS:
        open_tab(page, name)
        assert [panel.get_attribute("id") for panel in shown(page, "[role=tabpanel]")] == [name]
        assert at(page, f"tab-{name}").get_attribute("aria-selected") == "true"
        assert page.current_url.endswith(f"#{name}")
        assert shown(page, f"#{name} .card")
    at(page, "tab-cells").send_keys(Keys.ARROW_RIGHT)
    assert [panel.get_attribute("id") for panel in shown(page, "[role=tabpanel]")] == ["leaderboard"]
    page.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    assert page.switch_to.active_element.get_attribute("id") == "tab-cells"


def test_an_address_opens_its_tab(page: Chrome, reported: Reported) -> None:
    page.get(reported.page.as_uri() + "#tests")
    page.refresh()
    assert [panel.get_attribute("id") for panel in shown(page, "[role=tabpanel]")] == ["tests"]


def test_columns_sort_both_ways_and_what_is_missing_stays_last(page: Chrome) -> None:
    def numbers(header: str) -> list[float | None]:
        found = [re.match(r"[+-]?[\d.]+", text) for text in column(page, header)]
        return [float(m.group()) if m else None for m in found]

    assert column(page, "X") == ["", "0", "0", "0", "2", "2", "2"]
    for header in ("mean mAP", "difference", "i2t"):
        sort_by(page, header)
        down = numbers(header)
        known = [n for n in down if n is not None]
        assert known == sorted(known, reverse=True) and down[: len(known)] == known
        sort_by(page, header)
        up = numbers(header)
        assert [n for n in up if n is not None] == sorted(known) and up[: len(known)] == sorted(known)
    sort_by(page, "method")
    names = [name.split()[0] for name in column(page, "method")]
    assert names == sorted(names)
    (header,) = [th for th in shown(page, "#leaderboard th") if th.get_attribute("aria-sort")]
    assert header.text == "method" and header.get_attribute("aria-sort") == "ascending"


def test_the_dataset_chosen_is_the_one_that_is_shown(page: Chrome) -> None:
    for dataset in ("manifest/b", "manifest"):
        choose(page, "dataset", dataset)
        for name in TABS:
            open_tab(page, name)
            elements = shown(page, "[data-dataset]")
            assert elements and {e.get_attribute("data-dataset") or dataset for e in elements} == {dataset}


def test_the_x_chosen_is_the_one_that_is_shown(page: Chrome) -> None:
    open_tab(page, "curves")
    for shots in ("0", "2"):
        choose(page, "shots", shots)
        assert {f.get_attribute("data-shots") for f in shown(page, "#curves figure")} == {"", shots}
    open_tab(page, "leaderboard")
    assert not at(page, "shots").is_displayed()


def test_the_leaderboard_shows_every_x_or_one(page: Chrome) -> None:
    open_tab(page, "leaderboard")
    assert {row.get_attribute("data-shots") for row in shown(page, "#leaderboard tbody tr")} == {"", "0", "2"}
    choose(page, "rows", "2")
    assert {row.get_attribute("data-shots") for row in shown(page, "#leaderboard tbody tr")} == {"", "2"}


def test_the_scatter_shows_two_methods_and_the_query_pointed_at(page: Chrome, reported: Reported) -> None:
    open_tab(page, "queries")
    choose(page, "upright", "prototype")
    choose(page, "across", "random")
    choose(page, "scatter-direction", "text → image")
    data = reported.data_of_page
    spot = next(s for s in data["spots"] if (s["dataset"], s["shots"]) == ("manifest", "2"))
    upright, across = (np.array(spot["ap"][m]["t2i"]) for m in ("prototype", "random"))
    dots = page.find_elements(By.CSS_SELECTOR, "#scatter .dot")
    assert len(dots) == len(upright)
    assert f"better on {(upright > across).sum()} of {len(upright)}" in at(page, "point").text
    x, y = (np.array([float(dot.get_attribute(name)) for dot in dots]) for name in ("cx", "cy"))
    assert np.corrcoef(x, across)[0, 1] > 0.999 and np.corrcoef(y, upright)[0, 1] < -0.999
    alone = int(np.argmax(np.min(np.where(np.eye(len(x)) > 0, 1e9, np.hypot(x[:, None] - x, y[:, None] - y)), axis=1)))
    ActionChains(page).move_to_element(dots[alone]).perform()
    item = data["items"][spot["queries"][alone]]
    assert " ".join(item["text"].split())[:20] in at(page, "point").text
    assert at(page, "point").find_element(By.TAG_NAME, "img").get_property("naturalWidth") > 0
    assert f"AP {upright[alone] / 10:.1f}" in at(page, "point").text


def test_examples_are_pictures_with_what_is_right_marked(page: Chrome, reported: Reported) -> None:
    open_tab(page, "examples")
    data = reported.data_of_page
    spot = next(s for s in data["spots"] if (s["dataset"], s["shots"]) == ("manifest", "2"))
    for direction, arrow in (("i2t", "image → text"), ("t2i", "text → image")):
        choose(page, "example-method", "prototype")
        choose(page, "example-direction", arrow)
        kinds = {"worst": "answered worst", "gained": "gained most on clip", "lost": "lost most to clip"}
        for kind, words in kinds.items():
            choose(page, "example-kind", words)
            wanted = spot["examples"]["prototype"][direction][kind]
            found = page.find_elements(By.CSS_SELECTOR, "#example-list .example")
            assert len(found) == len(wanted)
            for one, example in zip(found, wanted, strict=True):
                assert len(one.find_elements(By.TAG_NAME, "img")) == 1 + sum(map(len, example["first"].values()))
                badges = one.find_elements(By.CSS_SELECTOR, ".strip .badge")
                marks = [badge.get_attribute("aria-label") for badge in badges]
                right = [mark for marks in example["right"].values() for mark in marks]
                assert marks == ["relevant" if mark else "not relevant" for mark in right]
    widths = page.execute_script("return [...document.querySelectorAll('#example-list img')].map(i => i.naturalWidth)")
    assert all(width > 0 for width in widths)
    choose(page, "example-method", "clip")
    assert [o.text for o in Select(at(page, "example-kind")).options] == ["answered worst"]


def test_commands_can_be_copied(page: Chrome) -> None:
    open_tab(page, "cells")
    shown(page, "#cells summary")[0].click()
    button = shown(page, "#cells .copy")[0]
    page.execute_script("navigator.clipboard.writeText = async (text) => { window.copied = text }")
    button.click()
    assert page.execute_script("return window.copied") == shown(page, "#cells .command code")[0].text
    assert str(page.execute_script("return window.copied")).startswith("python run_bench.py --methods ")


def colours(driver: Chrome) -> tuple[float, float]:
    """The brightness of the page's ground and of its letters, 0 to 1."""
    style = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    found: list[Any] = driver.execute_script(style)
    ground, ink = (sum(map(float, re.findall(r"[\d.]+", text)[:3])) / 765 for text in found)
    return ground, ink


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes(reported: Reported, theme: str, tmp_path) -> None:
    with browser(theme=theme) as driver:
        driver.get(reported.page.as_uri())
        for name in TABS:
            open_tab(driver, name)
            photograph(driver, f"page-{theme}-{name}", tmp_path)
        ground, ink = colours(driver)
        assert (ground > 0.9 and ink < 0.2) if theme == "light" else (ground < 0.1 and ink > 0.8)
        at(driver, "theme").click()
        assert (colours(driver)[0] > 0.5) == (theme == "dark")
        driver.refresh()
        assert (colours(driver)[0] > 0.5) == (theme == "dark"), "the choice is kept"
        assert complaints(driver) == []


def test_it_fits_a_phone(reported: Reported, tmp_path) -> None:
    with browser(PHONE) as driver:
        driver.get(reported.page.as_uri())
        for name in TABS:
            open_tab(driver, name)
            wide = driver.execute_script("return document.documentElement.scrollWidth")
            assert wide <= PHONE[0], f"{name} is {wide} pixels wide"
            photograph(driver, f"page-phone-{name}", tmp_path)
        open_tab(driver, "curves")
        sizes = driver.execute_script(
            "return [...document.querySelectorAll('#curves figure:not([hidden]) text')]"
            ".map(t => t.getBoundingClientRect().height)"
        )
        assert sizes and min(sizes) > 7, "letters in figures can be read"
        assert complaints(driver) == []


def test_a_photograph_is_no_blank(page: Chrome, tmp_path) -> None:
    resize(page, DESKTOP)
    with Image.open(photograph(page, "page-leaderboard", tmp_path)) as picture:
        assert picture.size == DESKTOP and len(picture.convert("RGB").getcolors(1 << 20) or []) > 200
    assert all(name in page.find_element(By.TAG_NAME, "main").text for name in METHODS)
