from __future__ import annotations

import re

import pytest
from gguf_files import write_gguf
from playwright.sync_api import expect
from steps import choose, open_it, upload
from tiny import make_tokenizer, tiny_llama_model

pytestmark = pytest.mark.browser


def test_a_directory_and_a_file_of_ones_own(open_page, model_folder, tmp_path):
    page = open_page()
    page.click("#change")
    choose(page, model_folder, "My own files")
    upload(page, tmp_path)
    expect(page.locator("#report")).to_contain_text("3 languages, 12 sentences in each")
    expect(page.locator("#report li").first).to_contain_text("The cat <b>sees</b> a boat.")
    open_it(page, "tiny-chat: ")
    expect(page.locator("#model-line")).to_contain_text("4 layers of 64 neurons, 3 languages")
    expect(page.locator("#prompt textarea")).to_have_value(re.compile("boat|ubwato|oko"))
    expect(page.locator("#example-languages label")).to_have_count(3)
    expect(page.locator("#summary")).to_contain_text("layer 4")
    page.click("#generate")
    page.wait_for_selector("[data-state=done]")
    page.get_by_role("tab", name="Map").click()
    expect(page.locator("#map-layer input[type=number]")).to_have_value("4")
    page.wait_for_selector("#map .plotly-panel-plot[data-drawn]", timeout=60_000)
    page.get_by_role("tab", name="Neurons").click()
    expect(page.locator("#mosaic-title")).to_contain_text("Layer 4")
    expect(page.locator("#neuron tbody tr")).to_have_count(3)
    page.locator("#switch label", has_text="Lab").click()
    page.get_by_role("tab", name="Steer").click()
    page.locator("#as-link").click()
    expect(page.locator("#private")).to_contain_text("on this computer alone")


def test_a_gguf_file_is_opened_by_its_path(open_page, tmp_path):
    pytest.importorskip("accelerate", reason="transformers asks for it to open GGUF files")
    model = tiny_llama_model(hidden_act="silu")
    file = write_gguf(model, make_tokenizer(), tmp_path / "small.gguf", "Q8_0")
    page = open_page()
    choose(page, str(file), "My own files")
    upload(page, tmp_path)
    expect(page.locator("#report")).to_contain_text("3 languages, 12 sentences in each")
    page.click("#check")
    expect(page.locator("#report")).to_contain_text("Q8_0, unpacked when it is opened")
    expect(page.locator("#report")).to_contain_text("3 of 64 neurons, hidden size 32")
    open_it(page, "small.gguf: ")
    expect(page.locator("#model-line")).to_contain_text("3 layers of 64 neurons, 3 languages")
    page.get_by_role("tab", name="Model").click()
    choose(page, str(tmp_path / "gone.gguf"), "My own files")
    page.click("#open")
    expect(page.locator("#progress [role=alert]")).to_contain_text("no directory or GGUF file")


def test_another_visitor_keeps_the_first_model(open_page, model_folder, tmp_path):
    page, other = open_page(), open_page()
    choose(page, model_folder, "My own files")
    upload(page, tmp_path)
    open_it(page, "tiny-chat: ")
    expect(other.locator("#model-line")).to_contain_text("village: ")
    other.click("#generate")
    other.wait_for_selector("[data-state=done]")
    other.get_by_role("tab", name="Neurons").click()
    expect(other.locator("#mosaic-title")).to_contain_text("Layer 3", timeout=20_000)


def test_what_was_measured_opens_at_once(open_page, model_folder, tmp_path):
    page = open_page()
    choose(page, model_folder, "My own files")
    upload(page, tmp_path)
    open_it(page, "tiny-chat: ")
    page.get_by_role("tab", name="Model").click()
    page.locator("#before input").click()
    page.get_by_role("option", name=re.compile("^village, ")).click()
    expect(page.locator("#model-line")).to_contain_text("village: ")
    expect(page.locator(".pane-text").first).to_be_visible()  # the stored first screen


def test_the_chat_template_is_shown(open_page, model_folder, tmp_path):
    page = open_page()
    expect(page.locator("#chat")).to_be_hidden()
    choose(page, model_folder, "My own files")
    upload(page, tmp_path)
    open_it(page, "tiny-chat: ")
    expect(page.locator("#chat input")).to_be_checked()
    page.locator("#prompt textarea").fill("Who sees <i>me</i>?")
    page.locator("#system textarea, #system input").fill("Answer in Yoruba.")
    page.locator("#sees button").first.click()
    expect(page.locator(".seen")).to_contain_text("<|im_start|>system\nAnswer in Yoruba.<|im_end|>")
    expect(page.locator(".seen")).to_contain_text("Who sees <i>me</i>?")
    page.click("#generate")
    page.wait_for_selector("[data-state=done]")
    page.locator("#chat input").uncheck()
    expect(page.locator("#system")).to_be_hidden()
    expect(page.locator(".seen")).to_have_text("<s>Who sees <i>me</i>?")


def test_measuring_can_be_cancelled(open_page, model_folder, slow_measuring):
    page = open_page()
    choose(page, model_folder, "Everyday")
    page.click("#open")
    expect(page.locator("#progress")).to_contain_text(re.compile(r"\d+ of 1920 sentences measured"))
    page.click("#cancel")
    expect(page.locator("#progress")).to_contain_text("Cancelled")
    expect(page.locator("#open")).to_be_visible()
    expect(page.locator("#model-line")).to_contain_text("village: ")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("/no/such/directory", "no directory"),
        ("<img src=x>", "is no model"),
    ],
)
def test_a_bad_model_gets_one_sentence(open_page, model, message):
    page = open_page()
    choose(page, model)
    page.click("#open")
    expect(page.locator("#progress")).to_contain_text(message)
    expect(page.locator("#progress img")).to_have_count(0)
    expect(page.locator("#open")).to_be_visible()


def test_a_bad_text_gets_its_report(open_page, model_folder, tmp_path):
    page = open_page()
    choose(page, model_folder, "My own files")
    upload(page, tmp_path, "bad.tsv", "en\tsw\nOne.\tMoja.\nTwo.\n")
    expect(page.locator("#report .note").first).to_contain_text("line 3")
    page.click("#open")
    expect(page.locator("#progress")).to_contain_text("line 3")


def test_a_link_for_another_model_offers_to_open_it(open_page, model_folder):
    query = f"?model={model_folder}&corpus=everyday&alpha=0.8&prompt=Hello&method=CLAS"
    page = open_page(query)
    expect(page.locator("#offer")).to_contain_text("tiny-chat")
    expect(page.locator("#strength output")).to_contain_text("0.50")
    page.click("#accept")
    expect(page.locator("#model-line")).to_contain_text("tiny-chat: ", timeout=60_000)
    expect(page.locator("#strength output")).to_contain_text("0.80")
    expect(page.locator("#prompt textarea")).to_have_value("Hello")
    expect(page.locator("#offer")).to_be_hidden()
    again = open_page(query)  # it is open now
    expect(again.locator("#model-line")).to_contain_text("tiny-chat: ")
    expect(again.locator("#strength output")).to_contain_text("0.80")


def test_a_link_to_an_authors_own_text_says_so(open_page):
    page = open_page("?corpus=theirs.tsv&alpha=0.8")
    expect(page.locator(".toast-body")).to_contain_text("author's own text, theirs.tsv")
    expect(page.locator("#strength output")).to_contain_text("0.50")


def test_a_link_opens_what_it_says_over_a_visitors_own_text(open_page, url, tmp_path):
    """That was opened behind the same link, and that a reload finds again."""
    query = "?alpha=1.3&target=ar&prompt=Anna"
    page = open_page(query)
    expect(page.locator("#strength output")).to_contain_text("1.30")
    choose(page, "village", "My own files")
    upload(page, tmp_path)
    open_it(page, "mine.tsv")
    page.wait_for_function("JSON.parse(sessionStorage.getItem('clas')).settings.strength === 0.5")
    page.reload()
    expect(page.locator("#model-line")).to_contain_text("mine.tsv")
    page.wait_for_function("window.clasOpened")  # what a reload finds is all set
    page.locator("#goals input[value=silence]").check()
    expect(page).to_have_url(f"{url}#goal=silence&tab=steer")
    expect(page.locator("#steer-stamp")).to_contain_text("Silence")
    page.wait_for_function(
        "JSON.parse(sessionStorage.getItem('clas')).settings.method === 'Silence'"
    )
    page.reload()
    expect(page.locator("#model-line")).to_contain_text("mine.tsv")
    expect(page.locator("#steer-stamp")).to_contain_text("Silence")
    page.goto("about:blank")
    page.goto(f"{url}#goal=write")
    expect(page.locator("#steer-stamp")).to_contain_text("DiffMean")
    expect(page.locator("#model-line")).not_to_contain_text("mine.tsv")
    page.goto(url + query)
    expect(page.locator("#strength output")).to_contain_text("1.30")
    expect(page.locator("#model-line")).not_to_contain_text("mine.tsv")
