"""What the Steer tab shows, as plain data: the result panel draws it by `textContent`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...evaluation.marks import SHIFTS
from ...evaluation.tasks.scoring import contains
from ...running.effects import COLLAPSED, Effects, in_nats
from ...running.generation import Step
from ...steering.methods import RandomControl
from ...steering.recipe import Recipe
from ...steering.where import ALL, steered_tokens
from ...text.languages import get_language
from .inputs import METHODS
from .parting import Parting
from .words import Vocabulary, marked

KINDS = ("unsteered", "steered", "control")
TITLES = ("Unsteered", "Steered", "Random control")
View = dict[str, Any]
FULL = 1.0  # nats of KL divergence that fill a bar of the strip


def steer_view(
    recipe: Recipe,
    step: Step | None,
    *,
    rows: int,
    state: str,
    effects: Sequence[Effects] = (),
    parting: Parting | None = None,
    vocabulary: Vocabulary | None = None,
    spoken: str = "",
    before: Sequence[str] = (),
) -> View:
    """The result panel's value.

    `rows` panes (unsteered, steered and perhaps the control); `state` is "running", "stopped",
    "done" or "stored". `effects` are those of the steered row, then of the control, and `parting`
    is where the first two texts part, once known. With a `vocabulary` words tell their language
    where it isn't `spoken`, the prompt's. `before`: the prompt's tokens, to show which are steered.
    """
    texts = step.texts if step else ("",) * rows
    spans = marked(texts, spoken if vocabulary else recipe.target, vocabulary)
    running = state == "running"
    panes = [
        {
            "kind": KINDS[row],
            "title": TITLES[row],
            "note": _note(row, recipe),
            "spans": spans[row],
            "dir": "rtl" if _rtl(effects, row, recipe) else "auto",
            "lang": spoken if vocabulary else _language(effects, row) or recipe.target,
            "writing": running and not (step and step.done[row]),
            "empty": "The model ended its text at once.",
            "badges": _badges(row, step, effects, state, vocabulary is None),
        }
        for row in range(rows)
    ]
    view: View = {
        "state": state, "panes": panes, "sentence": "", "measured": "", "facts": [], "strip": None,
        "parting": None,
    }  # fmt: skip
    if effects:
        view["sentence"] = _sentence(effects[0])
        view["measured"] = effects[0].sentence
        view["facts"] = _facts(effects)
        view["strip"] = _strip(effects[0], recipe, before)
    if parting is not None:
        view["parting"] = parting.as_dict()
    return view


def asked_pane(question: Mapping[str, Any], answer: str, code: str) -> View:
    """What a pane says of the question put to it: whether the asked-for words are in its answer, or
    those of another language, of which it says which ("also": {code: words})."""
    said = {"ask": question["ask"], "answer": " ".join(answer.split())}
    if contains(answer, question["asked"], code) == 1:
        return {**said, "right": True}
    also: Mapping[str, str] = question.get("also", {})
    other = next((one for one, asked in also.items() if contains(answer, asked, one) == 1), None)
    return {**said, "right": other is not None, **({"spoken": other} if other else {})}


def _sentence(effects: Effects) -> str:
    """What steering did, for who doesn't count in nats."""
    if effects.changed_share == 0:
        if not effects.kl.any():
            return "Nothing moved: the texts are the same."
        return "The texts are the same; the model's guesses moved."
    return outcome_sentence(effects.changed_share, effects.languages, effects.repetition)


def outcome_sentence(
    share: float, languages: tuple[str | None, str | None], repetition: tuple[float, float]
) -> str:
    """What became of a text: the share that changed, its language and its repetition before and
    after, as `Effects` has them."""
    if share == 0:
        return "The texts are the same."
    before, after = languages
    said = [f"{share:.0%} of the text changed"]
    if before and after and before != after:
        said.append(f"it went from {get_language(before).name} to {get_language(after).name}")
    if repetition[1] > COLLAPSED and repetition[1] > repetition[0]:
        said.append("it says the same again and again")
    return f"{'; '.join(said)}."


def _note(row: int, recipe: Recipe) -> str:
    if row == 0:
        return "the model as it is"
    if row == 2:
        kinds = {"coordinates" if one.method in SHIFTS else "neurons" for one in recipe.chain}
        return f"same numbers, random {' and '.join(sorted(kinds))}"
    said = (f"{METHODS[one.method][0]}, strength {one.alpha:g}" for one in recipe.chain)
    return ", then ".join(said).replace("-", "−")


def _language(effects: Sequence[Effects], row: int) -> str | None:
    if not effects or row > len(effects):
        return None
    return effects[0].languages[0] if row == 0 else effects[row - 1].languages[1]


def _rtl(effects: Sequence[Effects], row: int, recipe: Recipe) -> bool:
    return get_language(_language(effects, row) or recipe.target).rtl


def _badges(
    row: int, step: Step | None, effects: Sequence[Effects], state: str, tell_language: bool
) -> list[str]:
    if step is None:
        return []
    count = len(step.token_ids[row])
    badges = [f"{count} token{'' if count == 1 else 's'}"]
    if state in ("done", "stored") and not step.done[row]:
        badges = [f"cut at {badges[0]}"]
    if tell_language and effects and row <= len(effects):
        code = _language(effects, row)
        badges.insert(0, get_language(code).name if code else "language unclear")
    return badges


def _facts(effects: Sequence[Effects]) -> list[list[str]]:
    steered = effects[0]
    peak = int(steered.kl.argmax())
    before, after = steered.bits_per_token
    facts = [
        [
            "Tokens changed",
            f"{steered.changed_share:.0%}",
            "Share of both texts' tokens outside a common alignment",
        ],
        [
            "Largest shift",
            f"{in_nats(steered.kl[peak].item())}, token {peak + 1}",
            "KL divergence of the steered from the unsteered model's next-token probabilities",
        ],
        [
            "Surprise at the unsteered text",
            f"{before:.2f} → {after:.2f} bits per token",
            "How unlikely the unsteered text is to the model, before and under steering",
        ],
    ]
    if len(effects) > 1:
        facts.append(
            [
                "Mean shift, steered and control",
                f"{in_nats(steered.kl.mean().item())} and {in_nats(effects[1].kl.mean().item())}",
                "A gain that a random control of the same size also brings is not the method's",
            ]
        )
    return facts


def _strip(effects: Effects, recipe: Recipe, before: Sequence[str]) -> View:
    kl = [round(value, 6) for value in effects.kl.tolist()]
    peak = max(range(len(kl)), key=kl.__getitem__)
    strip: View = {
        "title": "How far steering moved the model's guess at each token of the unsteered text "
        f"(full height: {FULL:g} nat)",
        "tokens": list(effects.tokens),
        "kl": kl,
        "full": FULL,
        "peak": peak if kl[peak] > 0 else -1,
        "dir": "rtl" if get_language(recipe.target).rtl else "ltr",
    }
    if recipe.where != ALL and before:
        steered = steered_tokens(recipe.where, len(before), len(kl))
        strip["read"] = {
            "title": f"Where it acts: {sum(steered[: len(before)])} of the prompt's {len(before)} "
            f"tokens, {sum(steered[len(before) :])} of the text's {len(kl)}, as they are read",
            "tokens": [*before, *effects.tokens],
            "steered": list(steered),
        }
    return strip


def control_of(recipe: Recipe) -> RandomControl:
    """The recipe's method with its numbers dealt to random neurons."""
    return RandomControl(of=recipe.steering, seed=recipe.seed)
