"""How well one unit alone tells a language from the others (Kojima et al., arXiv 2404.02431).

A sentence's value at a unit is the mean of `h` over its tokens. Sorted by it, the sentences of the
language would all come first at a unit that tells it perfectly.
"""

from __future__ import annotations

import torch
from torch import Tensor

_AT_ONCE = 2**23  # numbers that are sorted together, 32 MB in float32


def average_precision(values: Tensor) -> Tensor:
    """Average precision at telling each language: values [units, languages, sentences] ->
    [units, languages], 0 to 1; chance is one over the number of languages.

    The mean, over the language's sentences, of the precision among all sentences that lie as high
    or higher. Sentences of the same value count together, as in scikit-learn's
    `average_precision_score`.
    """
    units, languages, sentences = values.shape
    values = values.reshape(units, -1).contiguous()
    rising = values.sort().values.contiguous()
    lower = torch.searchsorted(rising, values)
    # Of each sentence: how many of all lie as high or higher; then how many of its language do.
    rank = (rising.shape[1] - lower).view(units, languages, sentences).sort().values.contiguous()
    own = torch.searchsorted(rank, rank, right=True)
    return (own / rank).mean(-1)


def median(values: Tensor) -> Tensor:
    """The middle along the last axis, of an even number the mean of both in the middle."""
    rising = values.sort().values
    count = values.shape[-1]
    return (rising[..., (count - 1) // 2] + rising[..., count // 2]) / 2


def precision_and_median(sentences: Tensor) -> tuple[Tensor, Tensor]:
    """[languages, sentences, layers, neurons] -> both [layers, languages, neurons] float16."""
    languages, count, layers, neurons = sentences.shape
    found = torch.zeros(2, layers, languages, neurons, dtype=torch.float16)
    step = max(1, _AT_ONCE // (languages * count))
    for layer in range(layers):
        for start in range(0, neurons, step):
            part = slice(start, start + step)
            values = sentences[:, :, layer, part].permute(2, 0, 1).float()
            found[0, layer, :, part] = average_precision(values).T
            found[1, layer, :, part] = median(values).T
    return found[0], found[1]
