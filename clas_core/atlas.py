"""The atlas: what every MLP neuron does in every language, measured once.

Statistics of Tang et al. (LAPE, arXiv 2402.16438) and Mondal et al. (Int-mu, arXiv 2503.17456),
all taken at one site: the input of the down-projection, where plans act too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .corpus import ParallelCorpus
from .errors import ClasError
from .models import LanguageModel
from .paths import replacing
from .taps import Site, Tap, tapped

_FORMAT = "clas-atlas-1"


@dataclass(frozen=True, eq=False)
class Atlas:
    """Statistics over every token of a text, by language. Padding and special tokens don't count.

    languages: codes, in the order of the second axis.
    probability: [layers, languages, neurons], share of tokens whose gate is open (plain MLPs: at
        which h > 0), 0 to 1.
    mean, mean_abs, variance: [layers, languages, neurons], of h, |h|, and h (population variance).
    residual: [layers, languages, hidden], mean output of each decoder layer.
    tokens: [languages], int64, how many tokens were counted.
    meta: where it comes from (model, revision, dtype, corpus and its hash, versions).
    widths: neurons of each layer; beyond them everything is 0. Left out: all layers alike.

    Floats are float32 on the CPU.
    """

    languages: tuple[str, ...]
    probability: torch.Tensor
    mean: torch.Tensor
    mean_abs: torch.Tensor
    variance: torch.Tensor
    residual: torch.Tensor
    tokens: torch.Tensor
    meta: dict[str, Any] = field(default_factory=dict)
    widths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.widths:
            object.__setattr__(self, "widths", (self.num_neurons,) * self.num_layers)

    @property
    def num_layers(self) -> int:
        return self.probability.shape[0]

    @property
    def num_neurons(self) -> int:
        """MLP neurons in each layer."""
        return self.probability.shape[2]

    def index(self, language: str) -> int:
        """Position of a language code on the second axis. Raises ClasError if it isn't there."""
        if language not in self.languages:
            raise ClasError(
                f"The atlas knows no language {language!r}: choose one of "
                f"{', '.join(self.languages)}, or measure with text in {language!r} too."
            )
        return self.languages.index(language)

    @staticmethod
    def measure(
        lm: LanguageModel,
        corpus: ParallelCorpus,
        languages: Sequence[str] | None = None,
        batch_size: int = 32,
        progress: Callable[[int, int], None] | None = None,
    ) -> Atlas:
        """Run `lm` over the corpus once and collect the statistics of `languages` (default all).

        Sums are kept in float64, counts in int64, so that neither order nor `batch_size` (texts a
        forward pass) matters beyond 1e-6. `progress(done, total)` counts sentences; raising in it
        cancels. Other threads may use the model meanwhile.
        """
        codes = corpus.languages if languages is None else tuple(languages)
        corpus = corpus.subset(codes)  # refuses unknown codes
        if batch_size < 1:
            raise ClasError(f"Batch size must be at least 1, not {batch_size}.")
        collector = _Collector(lm, len(codes))
        done, total = 0, len(codes) * len(corpus)
        with torch.inference_mode(), tapped(lm, collector):
            for k, code in enumerate(codes):
                for texts in _batches(corpus.sentences[code], batch_size):
                    collector.run(lm, k, texts)
                    done += len(texts)
                    if progress is not None:
                        progress(done, total)
        return collector.atlas(codes, _meta(lm, corpus))

    def save(self, path: str | Path) -> None:
        """Write the atlas as one safetensors file."""
        tensors = {name: getattr(self, name).contiguous() for name in _TENSORS}
        metadata = {
            "format": _FORMAT,
            "languages": json.dumps(self.languages),
            "meta": json.dumps(self.meta),
            "widths": json.dumps(self.widths),
        }
        with replacing(path) as scratch:
            save_file(tensors, scratch, metadata)

    @staticmethod
    def load(path: str | Path) -> Atlas:
        """Read an atlas that `save` wrote. Raises ClasError if the file is missing or another's."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _FORMAT:
                    raise ClasError(f"{path} isn't an atlas: choose a file that atlas.save wrote.")
                tensors = {name: file.get_tensor(name) for name in _TENSORS}
        except (OSError, SafetensorError) as error:
            raise ClasError(f"Can't read an atlas from {path}: {error}") from error
        languages = tuple(json.loads(metadata["languages"]))
        widths = tuple(json.loads(metadata.get("widths", "[]")))
        return Atlas(languages, **tensors, meta=json.loads(metadata["meta"]), widths=widths)


_TENSORS = [f.name for f in fields(Atlas) if f.type == "torch.Tensor"]


class _Collector(Tap):
    """Adds up one batch after another; only the running sums outlive a forward pass."""

    def __init__(self, lm: LanguageModel, languages: int) -> None:
        neurons = (lm.num_layers, languages, lm.num_neurons)
        self._open = torch.zeros(neurons, dtype=torch.int64)
        self._sum = torch.zeros(neurons, dtype=torch.float64)
        self._sum_abs = torch.zeros(neurons, dtype=torch.float64)
        self._sum_squares = torch.zeros(neurons, dtype=torch.float64)
        self._residual = torch.zeros((lm.num_layers, languages, lm.hidden_size)).double()
        self._tokens = torch.zeros(languages, dtype=torch.int64)
        self._widths = lm.widths
        self._language = 0
        self._content = torch.zeros(0)  # [tokens of the batch], 1 where they count

    def run(self, lm: LanguageModel, language: int, texts: Sequence[str]) -> None:
        batch = lm.encode(texts)
        self._language = language
        self._content = batch.content.flatten().float()
        self._tokens[language] += int(batch.content.sum())
        lm.model.base_model(**batch.inputs, use_cache=False)  # without the vocabulary's logits

    def gate(self, site: Site, gate: torch.Tensor) -> None:
        self._count_open(site, gate)

    def neurons(self, site: Site, h: torch.Tensor) -> None:
        if not site.gated:
            self._count_open(site, h)
        h = h.float()
        at = (site.layer, self._language, site.neurons)
        self._sum[at] += self._total(h, site)
        self._sum_abs[at] += self._total(h.abs(), site)
        self._sum_squares[at] += self._total(h.square(), site)

    def hidden(self, layer: int, hidden: torch.Tensor) -> None:
        self._residual[layer, self._language] += self._total(hidden.float())

    def _count_open(self, site: Site, gate: torch.Tensor) -> None:
        # Whole numbers below 2^24 are exact in float32, and no batch has so many tokens.
        at = (site.layer, self._language, site.neurons)
        self._open[at] += self._total((gate > 0).float(), site).long()

    def _total(self, x: torch.Tensor, site: Site | None = None) -> torch.Tensor:
        """Sum over the tokens that count: x [..., units] -> [units], float64 on the CPU."""
        content = self._content.to(x.device)
        if site is None or site.tokens is None or site.experts is None:
            return (content @ x.flatten(0, -2)).double().cpu()
        sums = x.new_zeros(site.num_experts, x.shape[-1])
        sums.index_add_(0, site.experts, x * content[site.tokens][:, None])
        return sums.flatten().double().cpu()

    def atlas(self, languages: tuple[str, ...], meta: dict[str, Any]) -> Atlas:
        if not self._tokens.all():
            empty = ", ".join(languages[k] for k in (self._tokens == 0).nonzero().flatten())
            raise ClasError(f"No token to measure in {empty}: check these texts.")
        count = self._tokens[:, None].double()
        mean = self._sum / count
        return Atlas(
            languages,
            probability=(self._open / count).float(),
            mean=mean.float(),
            mean_abs=(self._sum_abs / count).float(),
            variance=(self._sum_squares / count - mean.square()).clamp_min(0).float(),
            residual=(self._residual / count).float(),
            tokens=self._tokens,
            meta=meta,
            widths=self._widths,
        )


def _batches(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Texts of like length together, so that little of a batch is padding."""
    ordered = sorted(texts, key=lambda text: len(text.encode()))
    return (ordered[start : start + size] for start in range(0, len(ordered), size))


def _meta(lm: LanguageModel, corpus: ParallelCorpus) -> dict[str, Any]:
    return {
        "model": lm.name,
        "revision": lm.revision,
        "dtype": str(lm.dtype).removeprefix("torch."),
        "corpus": corpus.name,
        "corpus_fingerprint": corpus.fingerprint,
        "torch": version("torch"),
        "transformers": version("transformers"),
    }
