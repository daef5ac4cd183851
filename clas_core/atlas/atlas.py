"""The atlas: what every MLP neuron does in every language, measured once.

Statistics of Tang et al. (LAPE, arXiv 2402.16438), Mondal et al. (Int-mu, arXiv 2503.17456) and
Kojima et al. (arXiv 2404.02431), all taken at one site: the input of the down-projection, where
plans act too.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ..errors import ClasError
from ..model.architecture import LanguageModel, UnsupportedModel
from ..paths import reading, replacing
from ..text.corpus import ParallelCorpus
from .fingerprint import fingerprint
from .measuring import VERSION, Progress, Sums, add_up
from .precision import precision_and_median

_FORMAT = "clas-atlas-4"
_OLDER = ("clas-atlas-2", "clas-atlas-3")  # without norm, precision and median
_STORED = (
    "probability", "mean", "residual", "norm", "precision", "median", "tokens", "routed",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Atlas:
    """Statistics over every token of a text, by language. Padding and special tokens don't count.

    languages: codes, in the order of the second axis.
    probability: [layers, languages, neurons], share of tokens whose gate is open (plain MLPs: at
        which h > 0), 0 to 1.
    mean: [layers, languages, neurons], of h.
    residual: [layers, languages, hidden], mean output of each decoder layer.
    norm: [layers, languages], mean length (Euclidean) of that output: the unit of shifts.
    precision: [layers, languages, neurons] float16, how well a sentence's mean of h tells the
        language from the others (average precision, 0 to 1).
    median: [layers, languages, neurons] float16, of the language's sentences' means of h. These
        two are of the first `meta["sentences"]` sentences.
    tokens: [languages], int64, how many tokens were counted.
    meta: where it comes from (model with revision, fingerprint and dtype, corpus and its hash,
        versions).
    widths: neurons of each layer; beyond them everything is 0. Left out: all layers alike.
    routed: [layers, languages, experts], int64, how many tokens went to each routed expert, whose
        neurons count those alone (all 0 without one); None in a model without experts.

    Other floats are float32; all is on the CPU.
    """

    languages: tuple[str, ...]
    probability: torch.Tensor
    mean: torch.Tensor
    residual: torch.Tensor
    norm: torch.Tensor
    precision: torch.Tensor
    median: torch.Tensor
    tokens: torch.Tensor
    meta: dict[str, Any] = field(default_factory=dict)
    widths: tuple[int, ...] = ()
    routed: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if not self.widths:
            object.__setattr__(self, "widths", (self.num_neurons,) * self.num_layers)

    @property
    def num_layers(self) -> int:
        """Decoder layers of the model."""
        return self.probability.shape[0]

    @property
    def num_neurons(self) -> int:
        """MLP neurons in the widest layer."""
        return self.probability.shape[2]

    def index(self, language: str) -> int:
        """Position of a language code on the second axis. Raises ClasError if it isn't there."""
        if language not in self.languages:
            raise ClasError(
                f"The atlas knows no language {language!r}: choose one of "
                f"{', '.join(self.languages)}, or measure with text in {language!r} too."
            )
        return self.languages.index(language)

    def check(self, lm: LanguageModel) -> None:
        """Raises ClasError unless this atlas was measured on `lm`, to the last weight.

        An atlas of older versions, which has no fingerprint, must have the sizes of `lm`; that it
        can't be told whose it is is logged, once a process.
        """
        known, name = self.meta.get("fingerprint"), self.meta.get("model")
        if known is None:
            sizes = (self.widths, self.residual.shape[2])
            if sizes != (lm.widths, lm.hidden_size):
                raise ClasError(f"The atlas is of a model of other sizes than {lm.name}: {_OWN}.")
            _log_once(f"The atlas of {name} has no fingerprint: is it of this {lm.name}?")
            return
        now = fingerprint(lm).as_dict()
        if other := [part for part in now if known.get(part) != now[part]]:
            raise ClasError(
                f"The atlas is of {name} in {self.meta.get('dtype')}, and {lm.name} in "
                f"{_dtype_name(lm)} has other {' and '.join(other)}: {_OWN}."
            )

    @staticmethod
    def measure(
        lm: LanguageModel,
        corpus: ParallelCorpus,
        languages: Sequence[str] | None = None,
        *,
        batch_size: int = 32,
        progress: Progress | None = None,
        resume: str | Path | None = None,
    ) -> Atlas:
        """Run `lm` over the corpus once and collect the statistics of `languages` (default all).

        One pass; of a batch, only sums outlive its forward, in float64 and int64, so that neither
        order nor `batch_size` (texts a forward pass) matters beyond 1e-6, or in half precision
        beyond the model's own rounding; and the means of single sentences, in float16, of as many
        as fit into 512 MB. `progress(done, total)` counts sentences; raising in it cancels. With
        `resume`, the sums are written to that file as it goes, and the next call with the same
        model and text goes on from there. Started by `accelerate launch` or torchrun, each process
        takes its share of the batches and all return the same atlas. Other threads may use the
        model meanwhile.

        Raises ClasError for an unknown language, a text without tokens or too long for the model,
        and a `resume` file of another measurement.
        """
        corpus = corpus.subset(languages)  # refuses unknown codes
        sums = add_up(lm, corpus, batch_size, progress, resume)
        return _means(sums, corpus.languages, _origin(lm, corpus))

    def save(self, path: str | Path) -> None:
        """Write one safetensors file; `load` gives back the same values to the bit."""
        tensors = {
            name: getattr(self, name).contiguous()
            for name in _STORED
            if getattr(self, name) is not None
        }
        metadata = {
            "format": _FORMAT,
            "languages": json.dumps(self.languages),
            "meta": json.dumps(self.meta),
            "widths": json.dumps(self.widths),
        }
        with replacing(path) as scratch:
            save_file(tensors, scratch, metadata)

    @staticmethod
    def load(path: str | Path, lm: LanguageModel | None = None) -> Atlas:
        """Read an atlas that `save` wrote, and with `lm`, `check` that it is of that model.

        Raises ClasError if the file is missing, no atlas, or another model's.
        """
        with reading("an atlas", path), safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") in _OLDER:
                raise ClasError(
                    f"{path} is an atlas of an older version, which lacks what is measured now: "
                    "measure the model again."
                )
            if metadata.get("format") != _FORMAT:
                raise ClasError(f"{path} isn't an atlas: choose a file that atlas.save wrote.")
            names = [name for name in _STORED if name in file.keys()]  # noqa: SIM118
            atlas = Atlas(
                tuple(json.loads(metadata["languages"])),
                **{name: file.get_tensor(name) for name in names},
                meta=json.loads(metadata["meta"]),
                widths=tuple(json.loads(metadata["widths"])),
            )
        if lm is not None:
            atlas.check(lm)
        return atlas


_OWN = "choose this model's own atlas, or measure it"


@lru_cache(maxsize=64)
def _log_once(text: str) -> None:
    logging.getLogger(__name__).warning(text)


def _means(sums: Sums, languages: tuple[str, ...], meta: dict[str, Any]) -> Atlas:
    """The means of these sums.

    Raises ClasError if a language had no token, UnsupportedModel if a layer was never heard of.
    """
    tensors, tokens = sums.tensors, sums.tensors["tokens"]
    if not tokens.all():
        empty = ", ".join(languages[k] for k in (tokens == 0).nonzero().flatten())
        raise ClasError(f"No token to measure in {empty}: check these texts.")
    if not tensors["heard"].all():
        raise UnsupportedModel(
            f"{sums.architecture}: no neuron of some layer was ever heard of, so this model "
            "computes its MLPs in a way that can't be steered. Choose another model."
        )
    count = tokens[:, None].double().expand(tensors["h"].shape).clone()
    for mlp in sums.experts:
        routed = tensors["routed"][mlp.layer, :, : mlp.experts]
        each = routed.repeat_interleave(mlp.per_expert, dim=1)
        count[mlp.layer, :, mlp.start : mlp.start + mlp.neurons] = each.double()
    count.clamp_(min=1)  # nothing was added up where no token came
    precision, median = precision_and_median(tensors["sentences"])
    return Atlas(
        languages,
        probability=(tensors["open"] / count).float(),
        mean=(tensors["h"] / count).float(),
        residual=(tensors["residual"] / tokens[:, None]).float(),
        norm=(tensors["norm"] / tokens).float(),
        precision=precision,
        median=median,
        tokens=tokens,
        meta={**meta, "sentences": tensors["sentences"].shape[1]},
        widths=sums.widths,
        routed=tensors["routed"] if sums.experts else None,
    )


def _origin(lm: LanguageModel, corpus: ParallelCorpus) -> dict[str, Any]:
    """What `Atlas.meta` says of this model and text."""
    return {
        "model": lm.name,
        "revision": lm.revision,
        "fingerprint": fingerprint(lm).as_dict(),
        "dtype": _dtype_name(lm),
        "corpus": corpus.name,
        "corpus_fingerprint": corpus.fingerprint,
        "measuring": VERSION,
        "torch": version("torch"),
        "transformers": version("transformers"),
    }


def _dtype_name(lm: LanguageModel) -> str:
    return str(lm.dtype).removeprefix("torch.")
