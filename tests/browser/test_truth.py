"""What the page shows is for what is set, or says that it isn't; what can be pressed does it."""

from __future__ import annotations

import re
import threading
import time

import pytest
from playwright.sync_api import Page, expect
from steps import choose, choose_quick_tasks, open_it, upload

from clas_core.ui.behind import works
from clas_core.ui.parts import controls

pytestmark = pytest.mark.browser

TWO = "en\tsw\n" + "".join(f"The cat {n} sleeps.\tPaka {n} analala.\n" for n in range(12))
WATCH = """() => {
  window.frames_ = [];
  const panes = () => [...document.querySelectorAll('.pane-text')].map(pane => pane.textContent);
  new MutationObserver(() => frames_.push(panes()))
    .observe(document.querySelector('.result-panes'), {childList: true, subtree: true});
}"""


def dimmed(page: Page, kind: str) -> bool:
    return page.evaluate("kind => document.documentElement.hasAttribute(`data-dim-${kind}`)", kind)


def expect_current(page: Page, kind: str, current: bool = True, timeout: float = 60_000) -> None:
    line = page.locator(f"#{kind}-stamp .stamp")
    expect(line).to_have_attribute("data-current", str(current).lower(), timeout=timeout)
    if not current:
        assert dimmed(page, kind)


def open_lab(page: Page) -> None:
    page.locator("#switch label", has_text="Lab").click()
    expect(page.locator("html")).to_have_attribute("data-mode", "lab")


def test_two_languages_can_be_opened(open_page, model_folder, tmp_path):
    page = open_page()
    choose(page, model_folder, "My own files")
    upload(page, tmp_path, "two.tsv", TWO)
    open_it(page, "2 languages")
    page.get_by_role("tab", name="Model").click()
    expect(page.locator("#progress")).to_contain_text("All tabs show")
    page.get_by_role("tab", name="Steer").click()
    open_lab(page)
    expect(page.locator("#method")).to_be_visible()
    expect(page.locator("#shared-from")).to_be_hidden()
    page.click("#generate")
    page.wait_for_selector("[data-state=done]")
    expect_current(page, "steer")


def test_what_could_not_be_shown_is_said_and_all_tabs_are_as_they_were(
    browser, url, model_folder, monkeypatch
):
    """An update that Gradio refuses, as a slider from 2 to 2 is; the console may hold its 500."""
    page = browser.new_page()
    page.goto(url)
    page.wait_for_selector("#generate")
    choose(page, model_folder)
    monkeypatch.setattr(controls, "_shared_range", lambda studio: {"maximum": 2})
    page.click("#open")
    expect(page.locator("#progress")).to_contain_text("can't be shown", timeout=60_000)
    expect(page.locator("#progress")).not_to_contain_text("All tabs show")
    expect(page.locator("#model-line")).to_contain_text("village: ")
    page.close()


def test_every_streamed_frame_is_a_beginning_of_the_final_text(open_page, slow_model):
    page = open_page()
    page.locator("#strength-range").press("End")
    page.evaluate(WATCH)
    page.click("#generate")
    page.wait_for_selector("[data-state=done]", timeout=60_000)
    frames = [frame for frame in page.evaluate("frames_") if len(frame) == 3]
    assert len({tuple(frame) for frame in frames}) > 3
    started = next(n for n, frame in enumerate(frames) if not any(frame))
    for frame in frames[started:]:
        assert all(last.startswith(text) for text, last in zip(frame, frames[-1]))


def test_panes_say_what_they_are_for_and_follow(open_page, slow_model):
    page = open_page()
    expect(page.locator("#steer-stamp")).to_contain_text("For CLAS, strength 0.5, layer 3, Swahili")
    expect_current(page, "steer")
    open_lab(page)
    for move in (
        lambda: page.locator("#strength-range").press("ArrowRight"),
        lambda: page.locator("#another").click(),
        lambda: page.locator("#control input").uncheck(),
        lambda: page.locator("#seed input").fill("5"),
    ):
        move()
        expect_current(page, "steer", False)
        expect(page.locator("#steer-stamp")).to_contain_text("Updating")
        expect_current(page, "steer")
        assert not dimmed(page, "steer")
    expect(page.locator("#steer-stamp")).to_contain_text("strength 0.55")
    expect(page.locator(".pane")).to_have_count(2)


def test_a_map_dims_until_it_is_right(open_page, studio, monkeypatch):
    quick, go_on = studio.mapper.compute, threading.Event()

    def slowly(*args, **options):
        assert go_on.wait(60)
        return quick(*args, **options)

    page = open_page("#tab=map")
    expect_current(page, "map")
    monkeypatch.setattr(studio.mapper, "compute", slowly)
    expect(page.locator("#map-stamp")).to_contain_text("strength 0.5, layer 3, seen at layer 3")
    page.locator("#strength-range").press("End")
    expect(page.locator("#map-stamp")).to_contain_text("Updating")
    expect_current(page, "map", False)
    go_on.set()
    expect_current(page, "map")
    expect(page.locator("#map-stamp")).to_contain_text("strength 2")
    assert not dimmed(page, "map")
    page.locator("#map-layer input[type=number]").fill("1")
    expect(page.locator("#map-stamp")).to_contain_text("seen at layer 1")
    expect_current(page, "map")


def test_neurons_follow_and_say_which_are_there(open_page):
    page = open_page("#tab=neurons")
    expect_current(page, "neurons")
    page.locator("#neuron-layer input").fill("99")
    expect(page.locator("#neurons-stamp")).to_contain_text("Layer 1 to 3 are there: this is 3")
    expect(page.locator("#neuron-layer input")).to_have_value("3")
    open_lab(page)
    page.locator("#first-layer input").fill("9")
    expect(page.locator("#summary")).to_contain_text("must be a number from 1 to 3")
    expect(page.locator("#neurons-stamp")).to_contain_text("must be a number from 1 to 3")
    assert dimmed(page, "neurons")


def test_a_verdict_is_for_the_settings_it_was_measured_with(open_page):
    page = open_page()
    choose_quick_tasks(page)
    page.get_by_role("button", name="Measure", exact=True).click()
    expect(page.locator("#measure-progress .verdict")).to_be_visible(timeout=60_000)
    expect(page.locator("#measure-stamp")).to_contain_text("For CLAS, strength 0.5")
    expect_current(page, "measure")
    page.locator("#strength-range").press("ArrowRight")
    expect_current(page, "measure", False)
    expect(page.locator("#measure-stamp")).to_contain_text("press Measure")
    page.locator("#strength-range").press("ArrowLeft")
    expect_current(page, "measure")


def test_stop_and_generate_at_once(open_page, slow_model):
    page = open_page()
    for _ in range(2):
        page.click("#generate")
        page.wait_for_selector("[data-state=running]")
        page.click("#stop")
    page.locator("#strength-range").press("End")
    page.click("#generate")
    expect(page.locator("#steer-stamp")).to_contain_text("strength 2", timeout=20_000)
    page.wait_for_selector("[data-state=done]", timeout=60_000)
    expect(page.locator("#generate")).to_be_visible()
    expect(page.locator("#stop")).to_be_hidden()
    expect(page.locator(".result-measured")).to_contain_text("nats")


def test_cancel_and_measure_at_once(open_page, monkeypatch):
    quick = works.run_tasks

    def slowly(*args, **options):
        for cells in quick(*args, **options):
            time.sleep(0.5)
            yield cells

    monkeypatch.setattr(works, "run_tasks", slowly)
    page = open_page()
    choose_quick_tasks(page)
    page.locator(".strength-mark.off").click()  # not measured before
    measure = page.get_by_role("button", name="Measure", exact=True)
    measure.click()
    page.locator("#measure-cancel").click()
    measure.click()
    expect(page.locator("#measure-cancel")).to_be_visible()
    expect(page.locator("#measure-progress .verdict")).to_be_visible(timeout=60_000)
    expect(measure).to_be_visible()


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("alpha=5", "Strength must be a number from -1 to 2"),
        ("beta=4", "Beta"),
        ("max_new_tokens=5000", "Length"),
        ("seed=9007199254740993", "seed"),
        ("method=LanguageArithmetic&lam=3", "lam = 3.0"),
        ("tau_mode=quantile", "tau_mode"),
        ("method=LAPE&source=fi", "away from must be one of"),
        ("dtype=float16", "dtype"),
        ("alfa=1", "no field alfa"),
    ],
)
def test_what_a_link_asks_for_and_the_page_cannot_show_is_said(open_page, query, field):
    page = open_page(f"?{query}")
    expect(page.locator(".toast-body")).to_contain_text(field)
    expect(page.locator("#strength output")).to_contain_text("0.50")


def test_a_link_is_shown_to_the_last_digit_whatever_was_added_to_it(open_page):
    prompt = "Who? Why?\nنعم <b>नमस्ते</b>"
    query = "?utm_source=a&fbclid=b&alpha=0.123&tau=0.1234567&seed=7&prompt=Who%3F+Why?%0A"
    query += (
        "%D9%86%D8%B9%D9%85+%3Cb%3E%E0%A4%A8%E0%A4%AE%E0%A4%B8%E0%A5%8D%E0%A4%A4%E0%A5%87%3C/b%3E"
    )
    page = open_page(query)
    expect(page.locator("#prompt textarea")).to_have_value(prompt)
    expect(page.locator("#strength output")).to_contain_text("0.123")
    page.locator("#as-link").click()
    link = page.locator("#link textarea, #link input")
    expect(link).to_have_value(re.compile("alpha=0.123&.*tau=0.1234567&.*seed=7"))
    open_page("?utm_source=a#tab=steer")
    expect(open_page("?utm_source=a").locator(".toast-body")).to_have_count(0)
    page.locator("#strength-range").press("ArrowRight")
    expect(page.locator("#link-stamp")).to_contain_text("press again")


def test_reload_and_back_keep_model_settings_prompt_and_tab(open_page, model_folder):
    page = open_page()
    choose(page, model_folder)
    open_it(page, "tiny-chat: ")
    page.locator("#prompt textarea").fill("Hello\nyou")
    page.locator("#strength-range").press("End")
    page.get_by_role("tab", name="Neurons").click()
    expect(page).to_have_url(re.compile("#tab=neurons$"))
    page.wait_for_function(
        """() => {
          const { settings } = JSON.parse(sessionStorage.getItem("clas") || "{}");
          return settings?.strength === 2 && settings.prompt === "Hello\\nyou";
        }""",
        timeout=60_000,
    )
    page.reload()
    expect(page.locator("#model-line")).to_contain_text("tiny-chat: ")
    expect(page.locator("#mosaic-title")).to_contain_text("Layer 4", timeout=20_000)
    expect(page.locator("#strength output")).to_contain_text("2.00")
    expect(page.locator("#prompt textarea")).to_have_value("Hello\nyou")
    page.go_back()
    expect(page.get_by_role("tab", name="Steer")).to_have_attribute("aria-selected", "true")
    page.go_back()
    expect(page.get_by_role("tab", name="Model")).to_have_attribute("aria-selected", "true")
