"""The page without a mouse."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from clas_core.ui.tabs import page as page_module

pytestmark = pytest.mark.browser
Open = Callable[..., Page]


def focused(page: Page) -> str:
    return page.evaluate("document.activeElement.id || document.activeElement.tagName")


def stops(page: Page, within: str) -> int:
    """How often Tab stops inside `within`."""
    page.evaluate("document.activeElement.blur()")
    page.evaluate("window.scrollTo(0, 0)")
    found = 0
    page.keyboard.press("Tab")
    for _ in range(150):
        found += page.evaluate("w => Boolean(document.activeElement.closest(w))", within)
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
    return found


def test_ctrl_enter_generates_and_the_page_says_so(open_page: Open) -> None:
    page = open_page()
    expect(page.locator("#prompt")).to_contain_text("Ctrl + Enter")
    page.locator("[data-state]").evaluate("e => delete e.dataset.state")
    prompt = page.locator("#prompt textarea")
    prompt.focus()
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("[data-state=done]")
    expect(prompt).to_be_focused()
    assert not prompt.input_value().endswith("\n\n")


def test_the_focus_stays_where_generate_is(open_page: Open, slow_model: None) -> None:
    page = open_page()
    page.locator("#generate").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#stop")).to_be_focused()
    page.wait_for_selector("[data-state=done]", timeout=60_000)
    expect(page.locator("#generate")).to_be_focused()


def test_the_focus_is_not_taken_from_elsewhere(open_page: Open, slow_model: None) -> None:
    page = open_page()
    page.locator("#generate").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-state=running]")
    page.locator("#strength-range").focus()
    page.wait_for_selector("[data-state=done]", timeout=60_000)
    page.wait_for_timeout(300)
    expect(page.locator("#strength-range")).to_be_focused()


def test_a_row_of_languages_is_one_stop(open_page: Open) -> None:
    page = open_page()
    assert stops(page, "#example-languages") == 1
    page.locator("#example-languages input").first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#example-languages label").nth(1).locator("input")).to_be_checked()
    expect(page.locator("#detected")).to_contain_text("Spanish, the language of the example")


def test_the_strip_of_tokens_is_one_stop(open_page: Open) -> None:
    page = open_page()
    page.locator("#switch label", has_text="Lab").click()
    expect(page.locator(".strip-row")).to_be_visible()
    assert stops(page, ".strip-row") == 1
    page.locator(".strip-cell").first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".strip-cell").nth(1)).to_be_focused()


def test_arrows_go_along_the_tabs(open_page: Open) -> None:
    page = open_page()
    assert stops(page, "[role=tablist]") == 1
    page.get_by_role("tab", name="Steer").focus()
    for key, name in (("ArrowRight", "map"), ("ArrowLeft", "steer"), ("ArrowLeft", "model"),
                      ("Home", "steer"), ("End", "model")):  # fmt: skip
        page.keyboard.press(key)
        expect(page.locator(f"#{name}-tab-button")).to_have_attribute("aria-selected", "true")
        assert focused(page) == f"{name}-tab-button"


def arrive(page: Page, tab: str, panel: str) -> Any:
    """The plot of a panel, with the focus on it."""
    page.get_by_role("tab", name=tab).click()
    page.wait_for_selector(f"{panel} .plotly-panel-plot[data-drawn]", timeout=60_000)
    if tab == "Map":
        expect(page.locator("#map-note")).not_to_contain_text("getting ready", timeout=60_000)
    page.wait_for_timeout(1500)
    plot = page.locator(f"{panel} .plotly-panel-plot")
    plot.focus()
    return plot


def test_marks_of_the_map_are_reached_and_spoken(open_page: Open) -> None:
    page = open_page()
    arrive(page, "Map", "#map")
    said = page.locator("#map .plotly-panel-said")
    page.keyboard.press("ArrowRight")
    expect(said).to_contain_text("Anna sees a boat.")
    expect(said).to_contain_text("English")
    page.keyboard.press("ArrowRight")
    expect(said).to_contain_text("Anna sees the moon.")
    page.keyboard.press("ArrowDown")
    expect(said).to_contain_text("Spanish")
    page.keyboard.press("Enter")
    expect(page.locator("#parallels li")).to_have_count(12)
    expect(page.locator("#parallels")).to_contain_text("Anna sees the moon.")
    expect(page.locator("#map .plotly-panel-keys")).to_contain_text("Arrow keys")


def test_layers_and_neurons_are_reached_and_spoken(open_page: Open) -> None:
    page = open_page()
    arrive(page, "Neurons", "#bars")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#bars .plotly-panel-said")).to_contain_text("Layer 1")
    page.keyboard.press("Enter")
    expect(page.locator("#neuron-layer input")).to_have_value("1")
    arrive(page, "Neurons", "#mosaic")
    for key in ("ArrowRight", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    expect(page.locator("#mosaic .plotly-panel-said")).to_contain_text("Neuron 2")
    page.keyboard.press("Enter")
    expect(page.locator("#neuron-number input")).to_have_value("2")
    expect(page.locator("#neuron")).to_contain_text("neuron 2")


def test_a_late_answer_leaves_the_visitors_tab(
    open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = page_module.remembered
    answered = threading.Event()

    def slow(*asked: Any) -> Any:
        time.sleep(3)
        answered.set()
        return quick(*asked)

    monkeypatch.setattr(page_module, "remembered", slow)
    page = open_page()
    page.get_by_role("tab", name="Measure").click()
    assert answered.wait(60)
    page.wait_for_timeout(2000)
    expect(page.locator("#measure-tab-button")).to_have_attribute("aria-selected", "true")
