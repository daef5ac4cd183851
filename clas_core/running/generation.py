"""Write on from a prompt under several plans side by side, a token at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress

from ..model.architecture import LanguageModel
from ..model.prompts import Prompt
from ..model.taps import is_tapped
from .batch import Plans
from .decoder import TooLarge, shared
from .decoding import Chooser, Rows, decode
from .request import Request
from .request import Step as Step


def generate(
    lm: LanguageModel,
    prompt: Prompt | Sequence[Prompt],
    plans: Plans = (None,),
    *,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
    stop: threading.Event | None = None,
    stop_at_newline: bool = False,
    where: str | Sequence[str] | None = None,
) -> Iterator[Step]:
    """Continue `prompt` once for each plan, side by side; yields after every token.

    One prompt is continued under every plan; several prompts need one plan each. A prompt is a text
    to read as it stands, or one from `prompts.render`, with a chat template. Temperature 0 is
    greedy. Above it, a token is argmax(logits / temperature + g) with Gumbel noise g (Gumbel 1954;
    Maddison et al. 2014), which is a draw from the softmax; all rows share one g a token, so rows
    differ only by what their plans did. g depends on `seed` and the token's index alone.

    A row ends at one of its prompt's `end_ids`, or with `stop_at_newline` at the first line break
    after some text (left out of its text). Set `stop` from any thread to end all at the next token.
    The model is steered during each forward only, never while the caller holds a step. `where`, one
    for all rows or one for each, takes the place of the plans' own; `steering.where.steered_tokens`
    tells which tokens that steers.

    Inside `with Decoder(lm):` it is written together with what others ask of the same model.

    Raises ClasError at once for an empty or too long prompt and for settings out of range.
    """
    request = Request(prompt, plans, max_new_tokens, temperature, seed, stop_at_newline, where)
    decoder = shared(lm)
    if decoder is not None and not is_tapped(lm):  # what is active here is not so in its thread
        with suppress(TooLarge):
            return decoder.submit(request, stop=stop)
    writing = request.begin(lm)
    lanes = writing.lanes
    active = [lane.plan for lane in lanes]
    rows = Rows(
        lm,
        active[0] if len(set(active)) == 1 else active,
        *lm.pad([lane.prompt_ids for lane in lanes]),
    )
    choose = Chooser(temperature, seed)
    answers = [lane.answers for lane in lanes]
    steps = decode(rows, answers, choose, max_new_tokens, stop=stop)
    return (writing.step(index) for index in steps)
