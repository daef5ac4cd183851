"""The page's one endpoint for programs, asked over HTTP as they do."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from tiny_studio import tiny_studio

from clas_core.errors import ClasError
from clas_core.running.generation import generate
from clas_core.steering.recipe import Recipe
from clas_core.ui.behind.profile import Profile, read_profile
from clas_core.ui.behind.program import answer
from clas_core.ui.behind.shelf import Shelf
from clas_core.ui.behind.studio import Studio
from clas_core.ui.tabs.page import build, launch_options

MCP = find_spec("mcp") is not None
PROMPT = "Anna anaona mashua. Juma anaona"
RECIPE = {"target": "sw", "alpha": 2.0, "beta": 3.0, "gamma": 0.0, "max_new_tokens": 12}


@pytest.fixture(scope="module")
def studio() -> Studio:
    return tiny_studio(Profile(models=(), threads=1, map_sentences=4, mcp=MCP))


@pytest.fixture(scope="module")
def url(studio: Studio) -> Iterator[str]:
    page = build(studio)
    options = {**launch_options(studio), "server_port": None, "quiet": True}
    _, address, _ = page.launch(**options, prevent_thread_lock=True)
    yield address
    page.close(verbose=False)


@pytest.fixture(scope="module")
def client(url: str) -> Client:
    return Client(url, verbose=False, analytics_enabled=False)


def by_library(studio: Studio, **fields: Any) -> tuple[str, ...]:
    recipe = Recipe(prompt=PROMPT, **{**RECIPE, **fields})
    plans = [None, recipe.build(studio.atlas)]
    *_, last = generate(studio.lm, PROMPT, plans, max_new_tokens=recipe.max_new_tokens)
    return last.texts


def test_it_is_the_only_endpoint_and_typed(client: Client) -> None:
    info: Any = client.view_api(return_format="dict", print_info=False)
    assert list(info["named_endpoints"]) == ["/steer"]
    assert info["unnamed_endpoints"] == {}
    model, prompt, recipe = info["named_endpoints"]["/steer"]["parameters"]
    assert [model["parameter_name"], prompt["parameter_name"]] == ["model", "prompt"]
    fields = recipe["type"]["properties"]
    assert set(fields) == set(Recipe.__dataclass_fields__)
    assert fields["alpha"] == {"type": "number"}
    texts, effects = info["named_endpoints"]["/steer"]["returns"]
    assert texts["type"]["required"] == ["unsteered", "steered"]
    assert effects["type"]["properties"]["changed_share"] == {"type": "number"}


def test_a_program_gets_what_the_library_says(client: Client, studio: Studio) -> None:
    texts, effects = client.predict("", PROMPT, RECIPE, api_name="/steer")
    assert (texts["unsteered"], texts["steered"]) == by_library(studio)
    assert texts["unsteered"] != texts["steered"]
    assert effects["changed_share"] > 0
    assert len(effects["kl"]) == len(effects["tokens"]) == 12
    assert max(effects["kl"]) > 0
    assert "tokens changed" in effects["sentence"]
    none, nothing = client.predict("village", PROMPT, {**RECIPE, "alpha": 0}, api_name="/steer")
    assert none["unsteered"] == none["steered"] == texts["unsteered"]
    assert nothing["changed_share"] == 0
    assert not any(nothing["kl"])


def test_a_part_of_a_text_is_steered_where_the_recipe_says_so(studio: Studio) -> None:
    shelf = Shelf(studio)
    found = answer(shelf, "", PROMPT, {**RECIPE, "where": "answer:6"})
    everywhere = answer(shelf, "", PROMPT, RECIPE)
    assert found.texts == by_library(studio, where="answer:6")
    assert found.effects.kl[:5].tolist() == [0.0] * 5  # token 6 is told from token 5
    assert everywhere.effects.kl[0] > 0


BAD = [
    ("", "", {}, "Write a prompt"),
    ("", "x" * 3000, {}, "3000 characters"),
    ("", PROMPT, {"alpah": 1}, "no field alpah"),
    ("", PROMPT, {"alpha": "much"}, "alpha must be a number"),
    ("", PROMPT, {"target": "xx"}, "xx"),
    ("", PROMPT, {"max_new_tokens": 121}, "at most 120"),
    ("", PROMPT, {"dtype": "float16"}, "leave dtype out"),
    ("", PROMPT, {"corpus": "/etc/passwd"}, "corpus must be one of"),
    ("", PROMPT, [1], "must be an object"),
    ("owner/name", PROMPT, {}, "owner/name"),
    ("/etc", PROMPT, {}, "opens no directories"),
    ("\x00", PROMPT, {}, "no model"),
    (3, PROMPT, {}, "Choose a model"),
    ("", {"a": 1}, {}, "prompt must be text"),
]


@pytest.mark.parametrize(("model", "prompt", "recipe", "message"), BAD)
def test_bad_input_gets_a_sentence(
    studio: Studio, model: Any, prompt: Any, recipe: Any, message: str
) -> None:
    with pytest.raises(ClasError, match=message):
        answer(Shelf(studio), model, prompt, recipe)


def test_the_sentence_reaches_the_program(client: Client) -> None:
    with pytest.raises(AppError, match="max_new_tokens is at most 120 here, not 9999"):
        client.predict("", PROMPT, {"max_new_tokens": 9999}, api_name="/steer")


def test_public_pages_serve_programs_and_a_laptop_does_so_if_asked() -> None:
    assert read_profile("cpu").mcp
    assert not read_profile("local").mcp


def test_without_its_package_the_tool_is_off(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clas_core.ui.tabs.program.find_spec", lambda name: None)
    assert launch_options(studio)["mcp_server"] is False


@pytest.mark.skipif(not MCP, reason="needs the package mcp")
def test_a_client_of_the_tool_gets_the_same(url: str, studio: Studio) -> None:
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async def talk() -> tuple[Any, Any, Any]:
        async with (
            streamablehttp_client(f"{url.rstrip('/')}/gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            listed = await session.list_tools()
            asked = {"model": "", "prompt": PROMPT, "recipe": RECIPE}
            answered = await session.call_tool("steer", asked)
            refused = await session.call_tool("steer", {**asked, "model": "owner/name"})
            return listed, answered, refused

    listed, answered, refused = asyncio.run(talk())
    (tool,) = listed.tools
    assert tool.name == "steer"
    assert "target" in tool.inputSchema["properties"]["recipe"]["description"]
    (part,) = answered.content
    texts, effects = ast.literal_eval(part.text)
    assert (texts["unsteered"], texts["steered"]) == by_library(studio)
    assert effects["changed_share"] > 0
    assert refused.isError
    assert "owner/name" in refused.content[0].text
