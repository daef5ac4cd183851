"""The endpoint for other programs: Gradio's own API, and a tool where the MCP server is on.

Gradio reads the types of an endpoint as they stand, so annotations here are no texts.
"""

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypedDict, get_type_hints

import gradio as gr

from ...errors import ClasError
from ...steering.recipe import Recipe
from ..behind.program import answer
from ..behind.shelf import Shelf

NAME = "steer"
AT_ONCE = 2  # programs that are answered at the same time: visitors come first
if TYPE_CHECKING:
    Fields = Mapping[str, Any]
else:
    Fields = TypedDict("Fields", get_type_hints(Recipe), total=False)


class Texts(TypedDict):
    """What the model writes, left alone and steered."""

    unsteered: str
    steered: str


class Effect(TypedDict):
    """As in `clas_core.Effects`. Pairs are unsteered, then steered."""

    sentence: str
    changed_share: float
    languages: list[str | None]
    bits_per_token: list[float]
    repetition: list[float]
    kl: list[float]
    tokens: list[str]


def build_endpoint(shelf: Shelf) -> None:
    """Add `steer` inside the page's blocks, the one endpoint that others are told of."""

    def steer(model: str, prompt: str, recipe: Fields) -> tuple[Texts, Effect]:
        """Continue a prompt with a language model twice: left alone, and steered from inside by
        turning neurons that languages share up and those of one language down.

        Args:
            model: empty for the one that the page opens with, or a Hugging Face id, as owner/name
            prompt: the text to continue, up to 2000 characters
            recipe: how to steer; what is left out has a default. target: the language to steer towards, such as "sw". alpha: the strength, 0 for none. method: CLAS, DiffMean, IntMu, LAPE, Kojima, ... layers: [6, 8] is 6 and 7, counted from 0. max_new_tokens: how much to write

        Returns:
            the texts, unsteered and steered
            what steering did: a sentence, the share of tokens that changed, the languages before and after, bits per token, repetition, and the KL divergence in nats at each token
        """  # noqa: E501 - one line an argument is what Gradio reads
        try:
            texts, effects = answer(shelf, model, prompt, recipe).as_dict()
        except ClasError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return Texts(**texts), Effect(**effects)  # type: ignore[typeddict-item]

    gr.api(steer, api_name=NAME, concurrency_limit=AT_ONCE, concurrency_id="programs")


def hide_others(page: gr.Blocks) -> None:
    """Keep what the page's own parts send each other out of the description of the API."""
    for event in page.fns.values():
        if event.api_name != NAME:
            event.api_visibility = "private"


def mcp_on(wanted: bool) -> bool:
    """Whether the MCP server can be started, if it is wanted; says so where it can't."""
    if wanted and find_spec("mcp") is None:
        logging.getLogger(__name__).warning(
            'The MCP server is off: pip install "clas-studio[mcp]" brings what it needs.'
        )
        return False
    return wanted
