"""The Measure tab as a visitor uses it, on a tiny random model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from steps import choose_quick_tasks

pytestmark = pytest.mark.browser


def test_measures_cell_by_cell_and_gives_the_numbers_away(
    open_page: Callable[..., Page], tmp_path: Path
) -> None:
    page = open_page()
    choose_quick_tasks(page)
    page.get_by_role("button", name="Measure", exact=True).click()
    expect(page.locator("#measure-progress .verdict")).to_be_visible(timeout=60_000)
    table = page.locator("table.gains")
    expect(table.locator("thead th").nth(2)).to_have_text("English")
    expect(table.locator("tbody tr")).to_have_count(6)  # left alone, 3 methods, 2 controls
    expect(page.locator("#measure-gains .plotly-panel-plot svg").first).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Report as HTML").click()
    report = tmp_path / "report.html"
    download.value.save_as(report)
    opened = page.context.new_page()
    opened.goto(report.as_uri())
    expect(opened.get_by_role("heading", level=1)).to_contain_text("Does steering help")
    expect(opened.locator("svg.main-svg").first).to_be_visible()
    opened.close()


def test_a_chosen_setting_can_be_taken_over(open_page: Callable[..., Page]) -> None:
    page = open_page()
    choose_quick_tasks(page)
    page.get_by_role("button", name="Breaks").click()  # a strength that isn't among those tried
    page.locator("#measure-baselines").get_by_label("DiffMean").uncheck()
    page.get_by_label("Choose strength and layers").check()
    page.get_by_role("button", name="Measure", exact=True).click()
    verdict = page.locator("#measure-progress .verdict")
    expect(verdict).to_contain_text("on test items", timeout=60_000)
    expect(page.locator("#measure-heat .plotly-panel-plot svg").first).to_be_visible()
    page.get_by_role("button", name="Use the suggested setting").click()
    expect(page.locator("#strength output")).not_to_contain_text("1.40")
    expect(page.locator("#summary")).to_contain_text("In layer 3 of 3:")


def test_cancel_keeps_the_page_and_measure_goes_on(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.get_by_role("tab", name="Measure").click()
    page.get_by_role("button", name="Measure", exact=True).click()
    page.get_by_role("button", name="Cancel", exact=True).last.click()
    expect(page.get_by_role("button", name="Measure", exact=True)).to_be_visible(timeout=30_000)


def test_what_is_missing_is_said_in_a_sentence(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.get_by_role("tab", name="Measure").click()
    for name in ("village-nli", "village-qa"):
        page.locator("#measure-tasks").get_by_label(name).uncheck()
    page.get_by_role("button", name="Measure", exact=True).click()
    expect(page.locator("#measure-progress")).to_contain_text("Choose at least one task")
