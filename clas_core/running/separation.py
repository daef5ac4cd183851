"""How far languages lie apart, and how well translations still find each other.

Everything here is computed in the original space, by cosine, never from 2-D coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import ClasError
from ..model.architecture import LanguageModel
from ..steering.plan import SteeringPlan
from ..text.corpus import ParallelCorpus
from .layout import Layout
from .states import BridgeCache, HiddenStates, hidden_states

__all__ = [
    "BridgeCache",
    "HiddenStates",
    "Layout",
    "Separation",
    "hidden_states",
    "separation",
    "separation_of",
]

NEIGHBOURS = 10
_ROWS_AT_ONCE = 1024  # bounds the similarity matrix to 1024 x n


@dataclass(frozen=True)
class Separation:
    """Scores of one set of hidden states; all distances are cosine distances.

    `silhouette`: mean silhouette by language, in [-1, 1] (Rousseeuw 1987, eq. 1).
    `centroid_ratio`: mean distance between two languages' centroids over the mean distance of a
    sentence to its own language's centroid (squared, of unit vectors: twice the cosine distance);
    0 is one cloud, above 1 the languages are further apart than wide.
    `knn_purity`: share of the 10 nearest neighbours that are of the same language, in [0, 1].
    `retrieval`: for each language but the anchor, the share of its sentences whose nearest anchor
    sentence is their translation, in [0, 1]; `mean_retrieval` averages the languages.
    """

    silhouette: float
    centroid_ratio: float
    knn_purity: float
    retrieval: dict[str, float]

    @property
    def mean_retrieval(self) -> float:
        """`retrieval` averaged over its languages."""
        return sum(self.retrieval.values()) / len(self.retrieval)


def separation(
    lm: LanguageModel,
    corpus: ParallelCorpus,
    plan: SteeringPlan | None = None,
    layer: int = -1,
    anchor: str = "en",
    progress: Callable[[int, int], None] | None = None,
) -> Separation:
    """Run the model over `corpus` under `plan` and score the states at `layer`.

    `layer` counts as `HiddenStates.pooled` does: 0 the embeddings, l the output of block l,
    negative from the end. Raises `ClasError` for a layer or an anchor that does not exist.
    """
    states = hidden_states(lm, corpus, plan, progress=progress)
    return separation_of(states.at(layer), states.labels, states.groups, anchor)


def separation_of(
    pooled: Tensor, labels: Sequence[str], groups: Sequence[int], anchor: str = "en"
) -> Separation:
    """Score the points `pooled` [n, hidden]; a pure function.

    `labels` [n] are the languages, `groups` [n] equal for translations of each other.
    """
    languages = list(dict.fromkeys(labels))
    if len(languages) < 2:
        raise ClasError("Separation needs sentences of at least two languages.")
    if anchor not in languages:
        raise ClasError(
            f"The anchor language {anchor!r} is not in the text; choose one of: "
            f"{', '.join(languages)}."
        )
    x = normalize(pooled.double(), dim=-1)  # [n, hidden]
    index = {code: k for k, code in enumerate(languages)}
    owner = torch.tensor([index[label] for label in labels], device=x.device)  # [n]
    member = torch.nn.functional.one_hot(owner, len(languages)).to(x)  # [n, languages]
    group = torch.as_tensor(groups, device=x.device)  # [n]
    return Separation(
        silhouette=_silhouette(x, owner, member),
        centroid_ratio=_centroid_ratio(x, owner, member),
        knn_purity=_knn_purity(x.float(), owner),
        retrieval={
            code: _retrieval(x.float(), group, owner == k, owner == index[anchor])
            for code, k in index.items()
            if code != anchor
        },
    )


def _silhouette(x: Tensor, owner: Tensor, member: Tensor) -> float:
    # The distance 1 - x.y is linear in y, so a point's mean distance to a language needs only
    # that language's mean vector: O(n * languages), not O(n^2).
    size = member.sum(0)  # [languages]
    distance = 1 - x @ (member.T @ x / size[:, None]).T  # [n, languages]
    own = size[owner]  # [n]
    within = distance.gather(1, owner[:, None])[:, 0] * own / (own - 1).clamp(min=1)
    nearest = distance.masked_fill(member.bool(), torch.inf).amin(1)
    score = (nearest - within) / torch.maximum(nearest, within)
    return score.where(own > 1, 0.0).nan_to_num(0.0).mean().item()


def _centroid_ratio(x: Tensor, owner: Tensor, member: Tensor) -> float:
    # Not normalised: the centroid of mere noise is near 0, and must not become a direction.
    centroid = member.T @ x / member.sum(0)[:, None]  # [languages, hidden]
    between = torch.pdist(centroid).square().mean()
    spread = (x - centroid[owner]).square().sum(-1)  # [n]
    within = (member.T @ spread / member.sum(0)).mean()
    return (between / within.clamp(min=1e-12)).item()


def _knn_purity(x: Tensor, owner: Tensor) -> float:
    k = min(NEIGHBOURS, len(x) - 1)
    same = 0
    for rows in torch.arange(len(x), device=x.device).split(_ROWS_AT_ONCE):
        similarity = x[rows] @ x.T
        similarity[torch.arange(len(rows)), rows] = -torch.inf  # a point is not its own neighbour
        nearest = similarity.topk(k).indices  # [rows, k]
        same += int((owner[nearest] == owner[rows, None]).sum())
    return same / (k * len(x))


def _retrieval(x: Tensor, group: Tensor, mine: Tensor, anchors: Tensor) -> float:
    best = (x[mine] @ x[anchors].T).argmax(1)
    return (group[anchors][best] == group[mine]).double().mean().item()
