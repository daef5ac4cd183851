"""axe-core finds nothing serious on any tab, light and dark, on a phone, a tablet and a desk."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from itertools import product
from typing import Any

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

AXE = (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
TABS = ("Steer", "Map", "Neurons", "Measure", "Model")
FIGURES = {"Map": "#map", "Neurons": "#mosaic"}


def findings(page: Page) -> list[str]:
    """What axe-core calls serious or critical: rule, what is wrong, where.

    The drawings themselves are left out: they are images to a screen reader, with a text beside
    them, and their thousands of marks take it minutes.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    found: dict[str, Any] = page.evaluate(
        "axe.run({exclude: ['.main-svg']}, {resultTypes: ['violations']})"
    )
    return [
        f"{one['id']}: {node['failureSummary']} {node['html'][:200]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def fill(page: Page, tab: str) -> None:
    """Open a tab with all that it can show."""
    page.get_by_role("tab", name=tab).click()
    if tab in FIGURES:
        page.wait_for_selector(f"{FIGURES[tab]} .plotly-panel-plot[data-drawn]", timeout=60_000)
    if tab == "Map":
        expect(page.locator("#map-note")).not_to_contain_text("getting ready", timeout=60_000)
        page.locator("#map .plotly-panel-plot").press("ArrowRight")
        page.locator("#map .plotly-panel-plot").press("Enter")
        page.wait_for_selector("#parallels li")
    if tab == "Measure":
        for name, wanted in (
            ("village-nli", False),
            ("village-qa", False),
            ("bits-per-byte", True),
        ):
            page.locator("#measure-tasks").get_by_label(name).set_checked(wanted)
        page.locator("#measure").click()
        expect(page.locator("#measure-progress .verdict")).to_be_visible(timeout=120_000)
    if tab == "Model":
        page.locator("#check").click()
        expect(page.locator("#report table")).to_be_visible(timeout=30_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious(open_page: Callable[..., Page], scheme: str) -> None:
    """Every tab, filled, at two or three widths; and again once it shows results for other
    settings."""
    page = open_page(color_scheme=scheme)
    page.locator("#switch label", has_text="Lab").click()
    for tab in TABS:
        fill(page, tab)
    widths = (1440, 768, 390) if scheme == "light" else (1440, 390)  # colours know no tablets
    found = at_widths(page, widths, TABS, "as asked")
    page.set_viewport_size({"width": 1440, "height": 900})
    page.get_by_role("tab", name="Steer").click()
    page.locator("#strength-range").press("End")  # what is shown is for other settings now
    expect(page.locator("html")).to_have_attribute("data-dim-measure", "", timeout=30_000)
    assert found + at_widths(page, (1440,), TABS[:4], "for other settings") == []


def at_widths(page: Page, widths: tuple[int, ...], tabs: tuple[str, ...], state: str) -> list[str]:
    """The serious findings on these tabs, at each of these widths in pixels."""
    found = []
    for width in widths:
        page.set_viewport_size({"width": width, "height": 900})
        fold = page.locator(".fold")
        if width == 390 and fold.get_attribute("aria-expanded") != "true":
            fold.click()
        for tab in tabs:
            page.get_by_role("tab", name=tab).click()
            found += [f"{tab}, {state}, {width} px: {one}" for one in findings(page)]
    return found


def test_every_table_lies_inside_its_card(open_page: Callable[..., Page]) -> None:
    page = open_page()
    outside = []
    for tab in ("Map", "Neurons"):
        fill(page, tab)
    for width, tab in product((1440, 1100, 768, 390), ("Map", "Neurons")):
        page.set_viewport_size({"width": width, "height": 900})
        page.get_by_role("tab", name=tab).click()
        outside += page.evaluate(
            """() => [...document.querySelectorAll("#scores, #map-card, .figure-card")]
              .filter((card) => {
                const edge = card.getBoundingClientRect().right;
                return [...card.querySelectorAll("table, ul")].some(
                  (inner) => inner.getBoundingClientRect().right > edge);
              }).map((card) => card.textContent.slice(0, 60))"""
        )
    assert outside == []
