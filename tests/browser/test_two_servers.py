"""The page on two servers that write its texts: what it shows, what it says, what it leaves out."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect
from stand_in import serving
from steps import choose, launched, open_it
from tiny_studio import tiny_studio

from clas_core.ui.behind.served import Served

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def pair():
    with serving("left-alone", "baked") as servers:
        yield servers


@pytest.fixture(scope="module")
def studio(pair):
    one = tiny_studio()
    one.stored = None
    one.served = Served.open([server.url for server in pair])
    return one


@pytest.fixture(scope="module")
def url(studio, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        with launched(studio) as address:
            yield address


@pytest.fixture(autouse=True)
def as_usual(pair):
    yield
    for server in pair:
        server.behave = None
        server.gate.set()


def expect_texts(page: Page, *texts: str) -> None:
    for number, text in enumerate(texts):
        expect(page.locator(".pane-text").nth(number)).to_have_text(text)
    expect(page.locator(".pane")).to_have_count(len(texts))


def opened(open_page) -> Page:
    """The page, once it has the answer that it asks for by itself: nothing is stored here."""
    page = open_page()
    page.wait_for_selector("[data-state=done]")
    expect_texts(page, "the cat sees a boat", "el gato ve un barco")
    return page


def ask(page: Page, prompt: str) -> None:
    page.fill("#prompt textarea", prompt)  # which is answered a second later


def test_both_panes_are_streamed_from_the_servers(open_page, pair):
    page = opened(open_page)
    expect(page.locator("#served")).to_contain_text("Its strength is the one that was baked")
    expect(page.locator("#control")).to_be_hidden()
    pair[1].gate.clear()
    ask(page, "Anna sees a boat.")
    expect(page.locator("[data-state=running]")).to_be_visible()
    expect_texts(page, "the cat sees a boat", "")  # as it comes
    pair[1].gate.set()
    page.wait_for_selector("[data-state=done]")
    expect_texts(page, "the cat sees a boat", "el gato ve un barco")
    assert [one.asked[-1][2]["prompt"] for one in pair] == ["Anna sees a boat."] * 2
    expect(page.locator("#steer-stamp")).to_contain_text("For left-alone and baked")
    expect(page.locator("#steer-stamp b")).to_be_hidden()
    asked = len(pair[0].asked)
    # The strength moves the map; the texts stay, and are still for what is set.
    page.locator("#strength-range").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.get_by_role("tab", name="Map").click()
    expect(page.locator("#scores table")).to_be_visible(timeout=60_000)
    page.get_by_role("tab", name="Steer").click()
    expect(page.locator("#steer-stamp b")).to_be_hidden()
    assert len(pair[0].asked) == asked


def test_stop_keeps_what_the_servers_wrote(open_page, pair):
    page = opened(open_page)
    pair[0].gate.clear()
    ask(page, "Anna sees the moon.")
    expect(page.locator("[data-state=running]")).to_be_visible()
    expect(page.locator(".pane-text").nth(1)).to_have_text("el gato ve un barco")
    page.locator("#stop").click()
    page.wait_for_selector("[data-state=stopped]")
    expect(page.locator(".pane-text .caret")).to_have_count(0)


def test_a_server_that_fails_gets_a_sentence_and_the_page_goes_on(open_page, pair):
    page = opened(open_page)
    pair[1].behave = lambda to: to.whole(500, {"error": {"message": "<b>out of memory</b>"}})
    said = "The baked model's server failed (HTTP 500): <b>out of memory</b>"
    ask(page, "Anna sees bread.")
    expect(page.locator("#steer-stamp")).to_contain_text(said)
    page.click("#generate")  # who presses a button is told in the corner too
    expect(page.get_by_test_id("toast-body")).to_contain_text(said)
    pair[1].behave = None
    page.click("#generate")
    page.wait_for_selector("[data-state=done]")
    expect_texts(page, "the cat sees a boat", "el gato ve un barco")


def test_another_model_writes_its_own_texts(open_page, pair, model_folder):
    """The servers are the first model's: one that a visitor opens has a control and no note."""
    page = opened(open_page)
    asked = len(pair[0].asked)
    choose(page, model_folder)
    open_it(page, "tiny-chat")
    page.get_by_role("tab", name="Steer").click()
    expect(page.locator(".result-measured")).to_contain_text("nats", timeout=60_000)
    expect(page.locator("#served")).to_be_empty()
    expect(page.locator("#control")).to_be_visible()
    assert len(pair[0].asked) == asked
