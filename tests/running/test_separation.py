from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_score

from clas_core.errors import ClasError
from clas_core.running.separation import separation, separation_of
from clas_core.steering.plan import LayerPlan, SteeringPlan

CODES = ("en", "sw", "hi")


def cloud(count=40, spread=1.0, shift=0.0, shared=0.0, size=24, seed=0):
    """`count` meanings in three languages: noise, a language's own offset, a meaning's own."""
    generator = torch.Generator().manual_seed(seed)
    offset = shift * torch.randn(len(CODES), 1, size, generator=generator)
    meaning = shared * torch.randn(1, count, size, generator=generator)
    noise = spread * torch.randn(len(CODES), count, size, generator=generator)
    labels = [code for code in CODES for _ in range(count)]
    groups = list(range(count)) * len(CODES)
    return (offset + meaning + noise).flatten(0, 1), labels, groups


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_silhouette_is_sklearns(shift):
    points, labels, groups = cloud(shift=shift)
    expected = silhouette_score(points.double().numpy(), labels, metric="cosine")
    assert separation_of(points, labels, groups).silhouette == pytest.approx(expected, abs=1e-9)


def test_silhouette_of_unequal_sizes_and_a_single_point():
    points, labels, groups = cloud(shift=1.0)
    keep = [*range(40), *range(40, 47), 80]
    points, labels, groups = points[keep], [labels[i] for i in keep], [groups[i] for i in keep]
    expected = silhouette_score(points.double().numpy(), labels, metric="cosine")
    assert separation_of(points, labels, groups).silhouette == pytest.approx(expected, abs=1e-9)


def test_the_rest_by_hand():
    points, labels, groups = cloud(count=12, shift=0.6, shared=0.6)
    found = separation_of(points, labels, groups)
    x = points.double().numpy()
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    distance = 1 - x @ x.T
    pure = hits = 0
    for i in range(len(x)):
        others = sorted((j for j in range(len(x)) if j != i), key=lambda j: distance[i, j])
        pure += sum(labels[j] == labels[i] for j in others[:10])
        if labels[i] == "sw":
            hits += min(range(12), key=lambda j: distance[i, j]) == groups[i]
    assert found.knn_purity == pytest.approx(pure / (10 * len(x)))
    assert found.retrieval["sw"] == pytest.approx(hits / 12)
    assert set(found.retrieval) == {"sw", "hi"}
    assert found.mean_retrieval == pytest.approx(sum(found.retrieval.values()) / 2)

    centroids = np.stack([x[[k == code for k in labels]].mean(0) for code in CODES])
    between = np.mean(
        [((centroids[a] - centroids[b]) ** 2).sum() for a, b in ((0, 1), (0, 2), (1, 2))]
    )
    within = np.mean(
        [((p - centroids[k]) ** 2).sum() for k in range(3) for p in x[12 * k : 12 * k + 12]]
    )
    assert found.centroid_ratio == pytest.approx(between / within)


def test_noise_has_no_clusters():
    """In two dimensions pure noise can look clustered; here it must not."""
    found = separation_of(*cloud(count=100))
    assert abs(found.silhouette) < 0.02
    assert found.centroid_ratio < 0.05
    assert found.knn_purity == pytest.approx(1 / 3, abs=0.05)
    assert found.mean_retrieval < 0.1


def test_extremes():
    apart = separation_of(*cloud(spread=0.01, shift=5.0))
    assert apart.silhouette > 0.95
    assert apart.knn_purity == 1
    assert apart.centroid_ratio > 10
    aligned = separation_of(*cloud(spread=0.01, shared=5.0))
    assert aligned.mean_retrieval == 1
    assert aligned.centroid_ratio < 0.01


def test_scale_does_not_matter():
    points, labels, groups = cloud(shift=0.5)
    one, other = separation_of(points, labels, groups), separation_of(points * 7, labels, groups)
    assert one.silhouette == pytest.approx(other.silhouette)
    assert one.retrieval == other.retrieval


def test_collapsed_points_give_finite_scores():
    found = separation_of(torch.ones(6, 4), ["en", "en", "en", "sw", "sw", "sw"], [0, 1, 2] * 2)
    assert found.silhouette == pytest.approx(0, abs=1e-6)
    assert found.retrieval == {"sw": pytest.approx(1 / 3)}
    assert np.isfinite(found.centroid_ratio)


def test_on_a_model(tiny_lm, tiny_corpus):
    plan = SteeringPlan({2: LayerPlan(scale=torch.full((64,), 4.0))})
    before, after = separation(tiny_lm, tiny_corpus), separation(tiny_lm, tiny_corpus, plan)
    assert before != after
    # The steered block is the last: nothing before it can have changed.
    assert separation(tiny_lm, tiny_corpus, layer=2) == separation(
        tiny_lm, tiny_corpus, plan, layer=2
    )
    assert set(after.retrieval) == {"es", "hi", "sw"}


def test_errors(tiny_lm, tiny_corpus):
    points, labels, groups = cloud(count=3)
    with pytest.raises(ClasError, match="at least two languages"):
        separation_of(points[:3], labels[:3], groups[:3])
    with pytest.raises(ClasError, match="anchor language 'xx' is not in the text"):
        separation_of(points, labels, groups, "xx")
    with pytest.raises(ClasError, match="no layer 9"):
        separation(tiny_lm, tiny_corpus, layer=9)
