"""The atlas: what every MLP neuron does in every language, measured once.

Statistics of Tang et al. (LAPE, arXiv 2402.16438) and Mondal et al. (Int-mu, arXiv 2503.17456),
all taken at one site: the input of the down-projection, where plans act too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import ClasError
from ..paths import replacing

if TYPE_CHECKING:
    from ..model.architecture import LanguageModel
    from ..text.corpus import ParallelCorpus

_FORMAT = "clas-atlas-2"
# How each is stored. No plan is made from the two in half precision, and an atlas of an 8 B model
# in 16 languages stays well under 120 MB.
_STORED = {
    "probability": torch.float32,
    "mean": torch.float32,
    "mean_abs": torch.bfloat16,
    "variance": torch.bfloat16,
    "residual": torch.float32,
    "tokens": torch.int64,
    "routed": torch.int64,
}


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
    routed: [layers, languages, experts], int64, how many tokens went to each routed expert, whose
        neurons count those alone (all 0 without one); None in a model without experts.

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
    routed: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if not self.widths:
            object.__setattr__(self, "widths", (self.num_neurons,) * self.num_layers)

    @property
    def num_layers(self) -> int:
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

    @staticmethod
    def measure(
        lm: LanguageModel,
        corpus: ParallelCorpus,
        languages: Sequence[str] | None = None,
        *,
        batch_size: int = 32,
        progress: Callable[[int, int], None] | None = None,
        resume: str | Path | None = None,
    ) -> Atlas:
        """Run `lm` over the corpus once and collect the statistics of `languages` (default all).

        One pass; of a batch, only sums outlive its forward, in float64 and int64, so that neither
        order nor `batch_size` (texts a forward pass) matters beyond 1e-6. `progress(done, total)`
        counts sentences; raising in it cancels. With `resume`, the sums are written to that file
        as it goes, and the next call with the same model and text goes on from there. Started by
        `accelerate launch` or torchrun, each process takes its share of the batches and all
        return the same atlas. Other threads may use the model meanwhile.

        Raises ClasError for an unknown language, a text without tokens, and a `resume` file of
        another measurement.
        """
        from .measuring import measure  # which makes atlases, and so imports this file

        return measure(lm, corpus, languages, batch_size, progress, resume)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, with mean_abs and variance rounded to bfloat16."""
        tensors = {
            name: getattr(self, name).to(dtype).contiguous()
            for name, dtype in _STORED.items()
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
    def load(path: str | Path) -> Atlas:
        """Read an atlas that `save` wrote. Raises ClasError if the file is missing or another's."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _FORMAT:
                    raise ClasError(f"{path} isn't an atlas: choose a file that atlas.save wrote.")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ClasError(f"Can't read an atlas from {path}: {error}") from error
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                tensors[name] = tensor.float()
        return Atlas(
            tuple(json.loads(metadata["languages"])),
            **tensors,
            meta=json.loads(metadata["meta"]),
            widths=tuple(json.loads(metadata["widths"])),
        )
