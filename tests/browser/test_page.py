from __future__ import annotations

import re
import threading
from dataclasses import replace

import pytest
from playwright.sync_api import Page, expect

from clas_core.ui.behind import first
from clas_core.ui.behind.goals import GOALS
from clas_core.ui.behind.views import KINDS
from clas_core.ui.tabs import neurons
from clas_core.ui.tabs import page as page_module

pytestmark = pytest.mark.browser


def generate(page: Page) -> None:
    # The tiny model may be done before anyone sees it run: forget the last result instead.
    page.locator("[data-state]").evaluate("e => delete e.dataset.state")
    page.click("#generate")
    page.wait_for_selector("[data-state=done]")


def open_tab(page: Page, name: str, panel: str) -> None:
    page.get_by_role("tab", name=name).click()
    page.wait_for_selector(f"{panel} .plotly-panel-plot[data-drawn]", timeout=60_000)


def move_strength(page: Page, key: str, times: int) -> None:
    page.locator("#strength-range").focus()
    for _ in range(times):
        page.keyboard.press(key)


def points(page: Page) -> list[list[float]]:
    return page.evaluate(
        "document.querySelector('#map .plotly-panel-plot').data.map(t => Array.from(t.x))"
    )


def stored_at(studio, alpha, code="sw"):
    cells = first.stored_cells(studio, code).values()
    return next(cell["view"] for cell in cells if cell["alpha"] == alpha)


def expect_panes(page: Page, view) -> None:
    for number, pane in enumerate(view["panes"]):
        text = "".join(text for text, *_ in pane["spans"]).lstrip()
        shown = page.locator(".pane-text").nth(number)
        expect(shown).to_have_text(text or pane["empty"])


def test_first_screen_is_a_stored_result(open_page, studio):
    page = open_page()
    view = stored_at(studio, 0.5)
    expect_panes(page, view)
    expect(page.locator(".result-sentence")).to_have_text(view["sentence"])
    expect(page.locator("#strength output")).to_contain_text("0.50")
    expect(page.locator("#detected")).to_contain_text("Swahili, the language of the example")
    expect(page.locator("#steer-stamp")).to_contain_text("For CLAS, strength 0.5")
    expect(page.locator(".pane-ask")).to_have_count(3)


def test_a_late_opening_leaves_a_visitor_in_the_tab_that_they_chose(open_page, monkeypatch):
    quick, go_on = page_module.opening_language, threading.Event()

    def late(*args):
        assert go_on.wait(60)
        return quick(*args)

    monkeypatch.setattr(page_module, "opening_language", late)
    page = open_page(locale="en")
    tab = page.get_by_role("tab", name="Neurons")
    tab.click()
    expect(tab).to_have_attribute("aria-selected", "true")
    go_on.set()
    expect(page.locator("#detected")).to_contain_text("English, the language of the example")
    expect(tab).to_have_attribute("aria-selected", "true")


def test_dragging_changes_the_text_without_the_server(open_page, studio):
    page = open_page()
    expect(page.locator("#steer-stamp .stamp")).to_have_attribute("data-current", "true")
    page.route("**/*", lambda route: None)  # the server says nothing any more
    for key, alpha in (("End", 2.0), ("Home", -1.0)):
        page.locator("#strength-range").press(key)
        expect_panes(page, stored_at(studio, alpha))
        assert not page.evaluate("document.documentElement.hasAttribute('data-dim-steer')")
    page.unroute_all(behavior="ignoreErrors")


def test_another_example_brings_its_own_answers(open_page, studio):
    page = open_page()
    page.locator("#example-languages label", has_text="English").click()
    expect_panes(page, stored_at(studio, 0.5, "en"))
    expect(page.locator("#curves figcaption").nth(1)).to_contain_text("English")
    expect(page.locator("#steer-stamp")).to_contain_text("Stored answers for CLAS")


def test_the_slider_speaks_in_words(open_page):
    page = open_page()
    output = page.locator("#strength output")
    for key, word in (("Home", "Other way"), ("End", "Breaks")):
        page.locator("#strength-range").press(key)
        expect(output).to_contain_text(word)
    page.locator(".strength-mark.melts").click()
    expect(output).to_have_text("Language melts 1.00")
    page.locator("#switch label", has_text="Lab").click()
    page.locator("#tau input[type=number]").fill("0.9")
    expect(output).to_have_text("1.00")  # what is known of one steering says nothing of others
    expect(page.locator(".curves")).to_be_hidden()


def test_at_0_the_slider_says_that_what_acts_first_goes_on(open_page):
    page = open_page()
    output = page.locator("#strength output")
    page.locator("#switch label", has_text="Lab").click()
    page.locator("#compose").click()
    expect(output).to_have_text("First only")
    expect(page.locator(".strength-mark.off")).to_have_text("first")
    page.locator("#decompose").click()
    page.locator(".strength-mark.off").click()
    expect(output).to_have_text("Off")


def test_the_plots_follow_the_slider(open_page):
    page = open_page()
    page.locator("#strength-range").press("End")
    expect(page.locator(".curves-said")).to_contain_text("30 % of answers right")
    page.locator(".strength-mark.off").click()
    expect(page.locator(".curves-said")).to_contain_text("Left alone: 90 % of answers right")


def test_the_plots_follow_the_prompts_language(open_page):
    page = open_page()
    page.locator("#prompt textarea").fill("أحمد يرى القمر.")
    expect(page.locator("#curves figcaption").nth(1)).to_contain_text("Arabic")
    expect(page.locator(".curves-key")).to_contain_text("all in Arabic")
    expect(page.locator(".curves")).to_be_visible()
    expect(page.locator("#example-languages input[value=ar]")).to_be_checked()
    expect(page.locator("#prompt textarea")).to_have_value("أحمد يرى القمر.")
    page.locator("#prompt textarea").fill(
        "Анна видит лодку. Кошка видит луну и хлеб."
    )  # of which nothing is stored
    expect(page.locator(".curves")).to_be_hidden()


def test_no_sweep_where_the_page_does_not_open_off(open_page):
    page = open_page(reduced_motion="no-preference")

    page.wait_for_timeout(3000)
    expect(page.locator("#strength output")).to_contain_text("0.50")


@pytest.fixture
def opens_off(studio, monkeypatch):
    """The tiny page opens off, from where alone it sweeps."""
    monkeypatch.setattr(studio, "opening", replace(studio.opening, alpha=0.0))


def test_one_sweep_to_where_language_melts_and_back(open_page, opens_off):
    page = open_page(reduced_motion="no-preference", locale="en")
    output = page.locator("#strength output")
    expect(output).to_contain_text("2.00")
    expect(page.locator("html")).to_have_attribute("data-sweep", "")
    expect(output).to_have_text("Off")
    expect(page.locator("html")).not_to_have_attribute("data-sweep", "")


def test_any_touch_stops_the_sweep_where_it_is(open_page, opens_off):
    page = open_page(reduced_motion="no-preference", locale="en")
    output = page.locator("#strength output")
    expect(output).to_contain_text("2.00")
    page.mouse.move(700, 500)
    page.mouse.wheel(0, 10)
    page.wait_for_timeout(4000)
    expect(output).to_contain_text("2.00")
    expect(page.locator("#steer-stamp")).to_contain_text("strength 2")


def test_no_sweep_where_motion_is_unwanted(open_page, opens_off):
    page = open_page(locale="en")
    page.wait_for_timeout(4000)
    expect(page.locator("#strength output")).to_have_text("Off")


def test_every_move_is_answered_by_itself(open_page):
    page = open_page()
    page.locator("#switch label", has_text="Lab").click()
    expect(page.locator("html")).to_have_attribute("data-mode", "lab")  # whose steps are smaller
    page.locator("#strength-range").press("ArrowRight")
    stamp = page.locator("#steer-stamp .stamp")
    expect(stamp).to_have_attribute("data-current", "false")
    expect(page.locator("#steer-stamp")).to_contain_text("Updating")
    expect(stamp).to_have_attribute("data-current", "true")
    expect(page.locator("#steer-stamp")).to_contain_text("strength 0.55")
    page.locator("#prompt textarea").fill("Anna sees the moon.")
    expect(page.locator("#steer-stamp")).to_contain_text("Anna sees the moon.")
    expect(page.locator(".toast-body")).to_have_count(0)
    page.locator("#prompt textarea").fill("")
    expect(page.locator("#steer-stamp")).to_contain_text("Write a prompt")
    expect(page.locator(".toast-body")).to_have_count(0)


@pytest.mark.parametrize(
    ("goal", "words"),
    [
        ("forget", "CLAS, strength 2, layer 3"),
        ("write", "DiffMean, strength 1"),
        ("silence", "Silence, strength 2"),
        ("help", "CLAS, strength 0.5"),
    ],
)
def test_goals_are_one_click_and_a_link(open_page, url, goal, words):
    page = open_page()
    other = "write" if goal == "silence" else "silence"  # where no page stands at first
    page.goto(f"{url}#goal={other}")
    page.reload()
    expect(page.locator(f"#goals input[value={other}]")).to_be_checked()
    page.locator(f"#goals input[value={goal}]").check()
    expect(page).to_have_url(f"{url}#goal={goal}&tab=steer")
    for one in (page, open_page(f"#goal={goal}&tab=steer")):
        expect(one.get_by_role("tab", name="Steer")).to_have_attribute("aria-selected", "true")
        expect(one.locator("#steer-stamp")).to_contain_text(words)
        expect(one.locator("#steer-stamp .stamp")).to_have_attribute("data-current", "true")
        told = one.locator("#goals input:checked").get_attribute("value")  # what it is, in the end
        expect(one.locator(".claim")).to_have_text(" ".join(GOALS[told].claim))
        assert one.locator(".pane-text").count() >= 2


def test_one_click_from_a_map_that_strength_leaves_alone(open_page):
    page = open_page("#tab=map&layer=1")
    reach = page.locator("#map-reach")
    expect(reach).to_contain_text("strength acts from layer 3 on", timeout=60_000)
    page.locator("#map-reach button").click()
    expect(page.locator("#map-layer input[type=number]")).to_have_value("3")
    expect(page.locator("#map-stamp")).to_contain_text("seen at layer 3")
    expect(reach).to_be_hidden()
    expect(page.locator("#map .plotly-panel-replay")).to_be_visible()
    page.locator(".strength-mark.off").click()  # where there is no move to play again
    expect(page.locator("#map .plotly-panel-replay")).to_be_hidden()


def test_links_run_and_keep_tab_layer_and_language(open_page):
    page = open_page("?alpha=1.3&target=ar&prompt=Anna#tab=map&layer=1")
    expect(page.get_by_role("tab", name="Map")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#map-stamp")).to_contain_text("strength 1.3, layer 3, seen at layer 1")
    page.get_by_role("tab", name="Steer").click()
    expect(page.locator("#steer-stamp")).to_contain_text("strength 1.3, layer 3, Arabic: “Anna”")
    expect(page.locator("#steer-stamp .stamp")).to_have_attribute("data-current", "true")
    page.locator("#as-link").click()
    expect(page.locator("#link textarea, #link input")).to_have_value(
        re.compile("target=ar.*layer=1$")
    )


def test_where_the_texts_part_is_shown_as_bars(open_page):
    page = open_page()
    page.locator("#strength-range").press("End")
    expect(page.locator(".parting-side")).to_have_count(2)
    expect(page.locator(".parting-side li")).to_have_count(8)
    expect(page.locator(".result-measured")).to_be_hidden()
    page.locator("#switch label", has_text="Lab").click()
    expect(page.locator(".result-measured")).to_contain_text("nats")


def test_generate_marks_differences_and_shows_the_strip(open_page):
    page = open_page()
    move_strength(page, "End", 1)
    expect(page.locator("#summary")).to_contain_text("× 1.40")
    page.locator("#control input").check()
    generate(page)
    expect(page.locator(".pane")).to_have_count(3)
    page.locator("#switch label", has_text="Lab").click()
    expect(page.locator(".strip-cell").first).to_be_visible()
    expect(page.locator(".result-measured")).to_contain_text("nats")


def test_off_gives_the_same_text_twice(open_page):
    page = open_page()
    page.locator(".strength-mark.off").click()
    expect(page.locator("#strength output")).to_have_text("Off")
    expect(page.locator("#summary")).to_contain_text("× 1.00")
    generate(page)
    assert len(set(page.locator(".pane-text").all_text_contents())) == 1
    expect(page.locator(".result-sentence")).to_have_text("Nothing moved: the texts are the same.")
    expect(page.locator(".pane-text mark")).to_have_count(0)


def test_a_models_words_are_never_markup(open_page, studio, monkeypatch):
    view = {**stored_at(studio, 0.5)}
    view["panes"] = [{**pane, "spans": [["<img src=x onerror=alert(1)>", True, "de"]]}
                     for pane in view["panes"]]  # fmt: skip
    view["state"] = "done"
    monkeypatch.setattr(studio, "steer", lambda *_, **__: iter([view]))
    page = open_page()
    page.click("#generate")
    expect(page.locator(".pane-text mark").first).to_have_text("<img src=x onerror=alert(1)>")
    expect(page.locator(".pane-text img")).to_have_count(0)


def test_stop_works_at_once(open_page, slow_model):
    page = open_page()
    page.click("#generate")
    page.wait_for_selector("[data-state=running]")
    expect(page.locator(".pane-text .caret").first).to_be_visible()
    page.locator("#stop").click()
    page.wait_for_selector("[data-state=stopped]", timeout=1000)
    expect(page.locator("#generate")).to_be_visible()
    expect(page.locator(".result-measured")).to_contain_text("nats")
    assert page.locator(".strip-cell").count() < 40


def test_map_redraws_when_the_strength_moves(open_page):
    page = open_page()
    open_tab(page, "Map", "#map")
    expect(page.locator("#scores table")).to_be_visible()
    expect(page.locator("#map-note")).not_to_contain_text("getting ready", timeout=60_000)
    page.wait_for_timeout(1500)
    before = points(page)
    move_strength(page, "End", 1)
    page.wait_for_function(
        "x => document.querySelector('#map .plotly-panel-plot').data[0].x[0] !== x",
        arg=before[0][0],
    )
    after = points(page)
    shadow = len(before) - 5  # then paths, parallels, rings, names
    assert after[shadow] == before[shadow]


def test_figures_are_drawn_after_a_move_before_they_are_shown(open_page):
    """A panel that is updated before its tab was opened still finds its library."""
    page = open_page()
    move_strength(page, "ArrowRight", 3)
    page.wait_for_timeout(1000)
    open_tab(page, "Map", "#map")
    open_tab(page, "Neurons", "#bars")


def test_a_figure_that_comes_while_its_tab_is_left_is_there_on_return(open_page, monkeypatch):
    left, shown = threading.Event(), neurons.views

    def slow(*arguments):
        left.wait(10)
        return shown(*arguments)

    monkeypatch.setattr(neurons, "views", slow)
    page = open_page("")
    page.get_by_role("tab", name="Neurons").click()
    expect(page.locator("#bars")).to_be_visible()
    page.wait_for_timeout(500)
    page.get_by_role("tab", name="Steer").click()
    expect(page.locator("#bars")).to_be_hidden()
    left.set()
    page.wait_for_timeout(1500)
    page.get_by_role("tab", name="Neurons").click()
    expect(page.locator("#bars .main-svg").first).to_be_visible()


def test_a_click_draws_the_parallels(open_page):
    page = open_page()
    open_tab(page, "Map", "#map")
    expect(page.locator("#map-note")).not_to_contain_text("getting ready", timeout=60_000)
    page.wait_for_timeout(1500)
    page.locator("#map .scatterlayer .trace").first.locator("path.point").nth(2).click(force=True)
    expect(page.locator("#parallels li")).to_have_count(12)
    expect(page.locator("#parallels [lang=ar]")).to_have_attribute("dir", "rtl")


def test_layer_slider_changes_the_map(open_page):
    page = open_page()
    open_tab(page, "Map", "#map")
    expect(page.locator("#map-note")).not_to_contain_text("getting ready", timeout=60_000)
    first = page.locator("#scores table").inner_text()
    page.locator("#map-layer input[type=number]").fill("0")
    page.keyboard.press("Tab")
    expect(page.locator("#scores table")).not_to_have_text(first)


def test_thresholds_move_the_neurons(open_page):
    page = open_page()
    page.locator("#switch label", has_text="Lab").click()
    open_tab(page, "Neurons", "#bars")
    title = page.locator("#mosaic-title")
    expect(title).to_contain_text("Layer 3")
    before = title.inner_text()
    page.locator("#tau input[type=number]").fill("0.9")
    page.keyboard.press("Tab")
    expect(title).not_to_have_text(before)
    expect(page.locator("#summary")).to_contain_text("0 shared")


def test_a_clicked_bar_and_tile_choose_layer_and_neuron(open_page):
    page = open_page()
    open_tab(page, "Neurons", "#mosaic")
    page.locator("#bars .barlayer .trace.bars path").first.click(force=True)
    expect(page.locator("#neuron-layer input")).to_have_value("1")
    expect(page.locator("#mosaic-title")).to_contain_text("Layer 1")
    page.locator("#mosaic .nsewdrag").click(position={"x": 200, "y": 100})
    expect(page.locator("#neuron")).not_to_contain_text("neuron 0:")
    expect(page.locator("#neuron tbody tr")).to_have_count(12)


def test_arabic_is_set_from_right_to_left(open_page):
    page = open_page()
    page.locator("#example-languages label", has_text="العربية").click()
    expect(page.locator("#detected")).to_contain_text("Arabic, the language of the example")
    prompt = page.locator("#prompt textarea")
    expect(prompt).to_have_attribute("dir", "auto")
    assert prompt.evaluate("e => getComputedStyle(e).direction") == "rtl"
    generate(page)
    for row in page.locator(".strip-row").all():
        expect(row).to_have_attribute("dir", "rtl")


@pytest.mark.parametrize("width", [390, 768, 1440])
def test_no_horizontal_scroll(open_page, width):
    page = open_page(width=width, height=844)
    if width == 390:
        page.locator(".fold").click()
    page.locator("#switch label", has_text="Lab").click()
    for tab in ("Steer", "Map", "Neurons", "Model"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(1500)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, tab


def test_panes_are_stacked_on_a_phone(open_page):
    page = open_page(width=390, height=844)
    left_alone, steered = (page.locator(f".pane.{kind}").bounding_box() for kind in KINDS[:2])
    assert left_alone["y"] >= steered["y"] + steered["height"]  # beside the slider, what it does
    assert steered["width"] > 300
    prompt = page.locator("#prompt").bounding_box()
    assert prompt["y"] + prompt["height"] < steered["y"]  # what it is that goes on
    text = page.locator(".pane.steered .pane-text").bounding_box()
    assert text["y"] + 30 < 844  # a line of it in sight, without a scroll
    assert page.locator("#generate").bounding_box()["y"] > left_alone["y"]
    expect(page.locator("#language")).to_be_hidden()
    page.locator(".fold").click()
    expect(page.locator("#language")).to_be_visible()
    expect(page.locator(".fold")).to_have_attribute("aria-expanded", "true")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(open_page, scheme):
    page = open_page(color_scheme=scheme)
    ratio = page.evaluate(
        """() => {
          const rgb = s => s.match(/[\\d.]+/g).slice(0, 3).map(Number);
          const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
          const light = c => c.map(v => linear(v / 255))
            .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
          const pane = document.querySelector('.pane');
          const back = light(rgb(getComputedStyle(pane).backgroundColor));
          return [...document.querySelectorAll('.pane-title, .pane-text, .pane-note')].map(e => {
            const ink = light(rgb(getComputedStyle(e).color));
            return (Math.max(ink, back) + .05) / (Math.min(ink, back) + .05);
          });
        }"""
    )
    assert min(ratio) >= 4.5


def test_keyboard_alone(open_page):
    page = open_page()
    page.locator("#strength-range").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#strength output")).to_contain_text("0.75")
    page.locator("#generate").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-state=done]")


@pytest.mark.parametrize(
    ("prompt", "message"), [("", "Write a prompt"), ("word " * 380, "too long")]
)
def test_bad_prompts_get_one_sentence_and_the_page_goes_on(open_page, prompt, message):
    page = open_page()
    page.locator("#prompt textarea").fill(prompt)
    page.click("#generate")
    expect(page.locator(".toast-body")).to_contain_text(message)
    page.locator("#prompt textarea").fill("Anna sees a boat.")
    expect(page.locator("#generate")).to_be_visible()
    generate(page)


def test_link_and_code_take_the_settings_along(open_page, url):
    page = open_page()
    page.locator("#switch label", has_text="Lab").click()
    expect(page.locator("html")).to_have_attribute("data-mode", "lab")
    move_strength(page, "ArrowRight", 3)
    page.locator("#as-link").click()  # in the Lab, which a link's settings open
    link = page.locator("#link textarea, #link input")
    expect(link).to_have_value(re.compile(rf"^{re.escape(url)}\?.*alpha=0.65.*#tab=steer$"))
    page.locator("#as-code").click()
    expect(page.locator(".cm-content")).to_contain_text("clas.CLAS(alpha=0.65")
    query = link.input_value().removeprefix(url)
    other = open_page(query)
    expect(other.locator("#strength output")).to_contain_text("0.65")
    expect(other.locator("#lab")).to_be_visible()


def test_a_broken_link_says_so(open_page):
    page = open_page("?alpha=many")
    expect(page.locator(".toast-body")).to_contain_text("can't be read")
    expect(page.locator("#strength output")).to_contain_text("0.50")
