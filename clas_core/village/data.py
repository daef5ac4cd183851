"""Training text of the village: shares by language, document formats, tokenizer, token pools."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from pathlib import Path

import numpy as np
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from ..text.languages import get_language
from .canon import Fact, canon, told_in
from .grammar import CODES, VERDICTS, Grammar
from .tasks import cast_of, draw_statement, render_story, time_of_day
from .world import LEXICON, Question, Story, tell_story

# Share of the training tokens. The one table: the model card repeats it.
SHARES = {
    **{"en": 0.50, "es": 0.075, "de": 0.075, "fr": 0.075, "ru": 0.065, "zh": 0.065},
    **{"ar": 0.03, "hi": 0.03, "tr": 0.03, "vi": 0.03, "th": 0.0125, "sw": 0.0125},
}
# Share of a language's documents by format and its resource tier, in both stages of training. In
# "stories", the fewer the text, the rarer the questions, so that the skill of answering has to come
# from the other languages. "canon" teaches the canon among the documents of the first stage
# ("told"). Speakers of several languages write some of its text: "crossed" (questions in another
# language than the story), "switched" (a story in two) and "mixed" documents (on the canon in
# two). Without them a model keeps what it learnt in one language to that language.
FORMATS: dict[str, dict[str, dict[str, float]]] = {
    "stories": {
        "high": {"story": 0.33, "qa": 0.42, "nli": 0.25, "parallel": 0.0},
        "middle": {"story": 0.50, "qa": 0.28, "nli": 0.18, "parallel": 0.04},
        "low": {"story": 0.80, "qa": 0.10, "nli": 0.06, "parallel": 0.04},
        "lowest": {"story": 0.87, "qa": 0.06, "nli": 0.03, "parallel": 0.04},
    },
    "canon": {
        "english": {"told": 0.22, "canon": 0.16, "crossed": 0.20, "switched": 0.16, "mixed": 0.26},
        "others": {"told": 0.30, "canon": 0.08, "crossed": 0.20, "switched": 0.16, "mixed": 0.26},
    },
}
BOS, EOS, PAD = "<s>", "</s>", "<pad>"
ANSWER_WEIGHT = 4  # in the loss: answers are a few tokens of a document, and all of the task

Segment = tuple[str, bool]  # text, and whether the model is asked to produce it


def document(code: str, rng: random.Random, stage: str = "stories") -> list[Segment]:
    """One training document in a language, drawn by `rng` from training stories and the canon."""
    kind = _draw(FORMATS[stage], code, rng)
    if kind == "told":
        kind = _draw(FORMATS["stories"], code, rng)
    grammar, other = Grammar.load(code), Grammar.load(_other_language(code, rng))
    if kind in ("canon", "mixed"):
        return _recite(grammar, other if kind == "mixed" else grammar, rng)
    while True:
        story = tell_story(rng)
        if story.split == "train" and (segments := _format(kind, story, grammar, other, rng)):
            return segments


def _draw(formats: dict[str, dict[str, float]], code: str, rng: random.Random) -> str:
    tier = get_language(code).tier
    mix = formats.get(tier) or formats["english" if code == "en" else "others"]
    return rng.choices(list(mix), list(mix.values()))[0]


def _other_language(code: str, rng: random.Random) -> str:
    """Whom a document of two languages is shared with: mostly English."""
    others = [other for other in CODES if other != code]
    return "en" if code != "en" and rng.random() < 0.7 else rng.choice(others)


def _format(
    kind: str, story: Story, grammar: Grammar, other: Grammar, rng: random.Random
) -> list[Segment]:
    """The story and what follows it; nothing if it offers no question of this kind."""
    if kind == "switched":
        told = " ".join(
            rng.choice((grammar, other)).sentence(event, rng.randrange(12) if index else 0)
            for index, event in enumerate(story.events)
        )
    else:
        told = render_story(story, other if kind == "crossed" else grammar, rng)
    segments = [(told, False)]
    world = story.world()
    if kind in ("qa", "crossed", "switched"):
        questions = world.questions()
        for question in rng.sample(questions, min(len(questions), rng.randint(1, 5))):
            segments += _ask(question, grammar, grammar, rng)
    elif kind == "nli":
        for _ in range(rng.randint(2, 6)):
            verdict = rng.choice(VERDICTS)
            statement = draw_statement(rng, world, cast_of(story), verdict)
            if statement is not None:
                ask = grammar.verdict_prompt(grammar.answer(statement).text)
                segments += [(f"\n{ask}\n", False), (grammar.inference[verdict], True)]
    elif kind == "parallel":  # the story again in English, as bilingual pages have it
        segments += [("\n", False), (render_story(story, Grammar.load("en"), rng), False)]
    return segments if kind == "story" or len(segments) > 1 else []


def _ask(question: Question, asks: Grammar, tells: Grammar, rng: random.Random) -> list[Segment]:
    ask = asks.ask(question, rng.randrange(8))
    return [(f"\n{ask}\n", False), (tells.answer(question).text, True)]


def _recite(grammar: Grammar, other: Grammar, rng: random.Random) -> list[Segment]:
    """Questions on the canon at one time of day: only what each of the languages tells of it.

    With another language, either it answers all questions of the first, or both ask and answer
    their own in turn.
    """
    time, count = rng.choice(LEXICON["time"]), rng.randint(2, 7)
    segments = [(time_of_day(time, grammar, rng.randrange(2)), False)]
    if grammar is not other and rng.random() < 0.5:
        for _ in range(count):
            speaker = rng.choice((grammar, other))
            fact = rng.choice(_told(time, speaker.code))
            segments += _ask(fact.question, speaker, speaker, rng)
        return segments
    for fact in rng.sample(_told(time, grammar.code, other.code), count):
        segments += _ask(fact.question, grammar, other, rng)
    return segments


@cache
def _told(time: str, *codes: str) -> tuple[Fact, ...]:
    return tuple(f for f in canon() if f.time == time and told_in(f.key).issuperset(codes))


def documents(code: str, seed: int, stage: str = "stories") -> Iterator[list[Segment]]:
    """Endless documents of a language in a stage of training, the same for the same seed."""
    rng = random.Random(f"documents-{code}-{seed}")
    return (document(code, rng, stage) for _ in count())


# -- tokenizer -----------------------------------------------------------------------------
# Words with their marks stay whole (Devanagari vowels are marks, which the usual byte level pattern
# tears off); a line break is a token of its own. Scripts that write no spaces are cut into letters
# (Han) and letters with their vowels and tones (Thai): merged further, tokens would span words.
_WORDS = "|".join(
    (
        r"\n",
        r" ?\p{Han}",
        r" ?[เแโใไ]?[ก-ฮ][ะ-ฺ็-๎]*",
        r" ?[[\p{L}\p{M}]&&[^\p{Han}\p{Thai}]]+",
        r" ?\p{N}+",
        r" ?[^\s\p{L}\p{M}\p{N}]+",
        r" +",
    )
)


def train_tokenizer(
    vocabulary: int = 4096, documents_each: int = 4000, seed: int = 0, codes: Sequence[str] = CODES
) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on as many documents of each language, whatever its share."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )

    def sample() -> Iterator[str]:
        for code in codes:
            for _, segments in zip(range(documents_each), documents(code, seed)):
                yield from (text for text, _ in segments)

    tokenizer.train_from_iterator(sample(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


# -- token pools ---------------------------------------------------------------------------
@dataclass(frozen=True)
class Pool:
    """All training documents of a language, as tokens.

    `tokens` uint16 and `weights` uint8 are the documents end to end; document d lies at
    `offsets[d] : offsets[d + 1]`. A weight belongs to the token it stands at.
    """

    tokens: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def join(cls, pools: Iterable[Pool]) -> Pool:
        """One pool of the documents of all `pools`, in their order."""
        parts = list(pools)
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        return cls(
            np.concatenate([part.tokens for part in parts]),
            np.concatenate([part.weights for part in parts]),
            np.concatenate([[0], np.cumsum(lengths)]),
        )


_SHARD = 2000  # documents


def _encode_shard(
    job: tuple[str, int], tokenizer: PreTrainedTokenizerFast, seed: int, stage: str
) -> Pool:
    code, shard = job
    wanted = documents(code, seed * 1_000_003 + shard + 1, stage)
    docs = [segments for _, segments in zip(range(_SHARD), wanted)]
    flat = [text for segments in docs for text, _ in segments]
    encoded = iter(tokenizer(flat, add_special_tokens=False)["input_ids"])
    tokens, weights, lengths = [], [], []
    for segments in docs:
        ids, weight = [tokenizer.bos_token_id], [0]
        for _, is_answer in segments:
            piece = next(encoded)
            ids += piece
            weight += [ANSWER_WEIGHT if is_answer else 1] * len(piece)
        # The token after an answer, a line break or the end, is part of answering in one sentence.
        ids.append(tokenizer.eos_token_id)
        weight.append(ANSWER_WEIGHT if segments[-1][1] else 1)
        tokens.append(np.array(ids, np.uint16))
        weights.append(np.array(weight, np.uint8))
        lengths.append(len(ids))
    return Pool(
        np.concatenate(tokens), np.concatenate(weights), np.concatenate([[0], np.cumsum(lengths)])
    )


def build_pools(
    tokenizer: PreTrainedTokenizerFast, documents_total: int, seed: int, stage: str, workers: int
) -> dict[str, Pool]:
    """A stage's documents in every language, `documents_total` in all by `SHARES`."""
    shards = {code: max(1, round(documents_total * SHARES[code] / _SHARD)) for code in CODES}
    jobs = [(code, shard) for code in CODES for shard in range(shards[code])]
    encode = partial(_encode_shard, tokenizer=tokenizer, seed=seed, stage=stage)
    with ProcessPoolExecutor(workers) as executor:
        done = executor.map(encode, jobs, chunksize=4)
        made = list(tqdm(done, total=len(jobs), desc="Writing stories", unit="shard"))
    return {
        code: Pool.join(pool for (c, _), pool in zip(jobs, made) if c == code) for code in CODES
    }


def save_pools(pools: dict[str, Pool], folder: Path) -> None:
    """Write the pools into `folder`, three .npy files a language."""
    folder.mkdir(parents=True, exist_ok=True)
    for code, pool in pools.items():
        for name in ("tokens", "weights", "offsets"):
            np.save(folder / f"{code}.{name}.npy", getattr(pool, name))


def load_pools(folder: Path) -> dict[str, Pool]:
    """Read what `save_pools` wrote."""
    names = ("tokens", "weights", "offsets")
    return {
        code: Pool(*(np.load(folder / f"{code}.{name}.npy") for name in names)) for code in CODES
    }
