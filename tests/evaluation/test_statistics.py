"""Statistics against scipy, values worked out by hand, enumeration and simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from clas_core.evaluation.judging.statistics import (
    detectable_share,
    holm,
    mcnemar,
    minimum_detectable_effect,
    one_standard_error_choice,
    paired_bootstrap,
    sign_flip,
    spearman,
    standard_error,
)

numbers = st.floats(-1, 1).map(lambda value: round(value, 3))
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def draw(seed, n=80):
    rng = np.random.default_rng(seed)
    return rng.normal(0.1, 0.3, n) * (rng.random(n) < 0.5)


def test_bootstrap_agrees_with_scipy():
    differences = draw(1)
    found = paired_bootstrap(differences, resamples=40_000)
    other = stats.bootstrap((differences,), np.mean, n_resamples=40_000, method="percentile", rng=2)
    assert found.estimate == pytest.approx(differences.mean())
    assert found.low == pytest.approx(other.confidence_interval.low, abs=0.002)
    assert found.high == pytest.approx(other.confidence_interval.high, abs=0.002)


def test_bootstrap_in_parts_is_one_sample(monkeypatch):
    monkeypatch.setattr("clas_core.evaluation.judging.statistics._AT_ONCE", 1000)
    assert paired_bootstrap(draw(1)).low == pytest.approx(
        np.quantile(np.random.default_rng(3).choice(draw(1), (10_000, 80)).mean(1), 0.025),
        abs=0.005,
    )


@settings(deadline=None, max_examples=30)
@given(st.lists(numbers, min_size=1, max_size=30), st.integers(0, 5))
def test_bootstrap_interval_holds_the_estimate_and_stays_in_range(differences, seed):
    found = paired_bootstrap(differences, resamples=500, seed=seed)
    assert min(differences) - 1e-9 <= found.low <= found.estimate + 1e-9
    assert found.estimate - 1e-9 <= found.high <= max(differences) + 1e-9
    assert found == paired_bootstrap(differences, resamples=500, seed=seed)


def test_groups_are_drawn_whole():
    """Three copies of each item in a group tell no more than one."""
    differences = draw(4)
    copied, groups = np.tile(differences, 3), list(range(80)) * 3
    alone, grouped = paired_bootstrap(differences), paired_bootstrap(copied, groups=groups)
    assert (grouped.low, grouped.high) == pytest.approx((alone.low, alone.high))
    naive = paired_bootstrap(copied)
    assert naive.high - naive.low < 0.7 * (alone.high - alone.low)
    assert standard_error(copied, groups=groups) == pytest.approx(standard_error(differences))
    assert sign_flip(copied, groups=groups) == pytest.approx(sign_flip(differences), abs=0.02)


@pytest.mark.parametrize("values", [[], [float("nan")], [[1.0]]])
def test_no_or_bad_items_are_refused(values):
    with pytest.raises(ValueError, match="finite"):
        paired_bootstrap(values)
    with pytest.raises(ValueError, match="groups"):
        paired_bootstrap([1.0], groups=["a", "b"])


@pytest.mark.slow
def test_coverage():
    """The interval of 95 % holds the truth about that often, also over correlated languages."""
    rng = np.random.default_rng(0)
    runs = 600
    held = grouped = naive = 0
    groups = list(range(60)) * 6
    for seed in range(runs):
        sample = rng.choice([-1.0, 0.0, 1.0], size=200, p=[0.05, 0.88, 0.07])
        found = paired_bootstrap(sample, resamples=1000, seed=seed)
        held += found.low <= 0.02 <= found.high
        shared = rng.normal(0.1, 0.3, 60)  # of an item, in all of six languages
        many = (shared + rng.normal(0, 0.2, (6, 60))).ravel()
        found = paired_bootstrap(many, groups=groups, resamples=1000, seed=seed)
        grouped += found.low <= 0.1 <= found.high
        found = paired_bootstrap(many, resamples=1000, seed=seed)
        naive += found.low <= 0.1 <= found.high
    assert 0.92 < held / runs < 0.975
    assert 0.92 < grouped / runs < 0.975
    assert naive / runs < 0.8


def test_mcnemar_by_hand():
    before = [1] * 1 + [0] * 8 + [1] * 20 + [0] * 5
    after = [0] * 1 + [1] * 8 + [1] * 20 + [0] * 5
    assert mcnemar(before, after) == pytest.approx(2 * (1 + 9) / 2**9)
    assert mcnemar(before, before) == 1.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_mcnemar_is_symmetric_and_a_sign_test(pairs):
    before, after = (np.array(side, float) for side in zip(*pairs))
    assert mcnemar(before, after) == pytest.approx(mcnemar(after, before))
    if np.count_nonzero(after - before) <= 12:
        assert sign_flip(after - before) == pytest.approx(mcnemar(before, after))


def test_sign_flip_by_hand_and_against_scipy():
    assert sign_flip([1, 2, 3]) == pytest.approx(2 / 8)
    assert sign_flip([0.1, 0.2, -0.3]) == 1.0  # the sum is 0, but for rounding
    assert sign_flip([0, 0]) == 1.0
    few = draw(5, 9) + 0.1
    exact = stats.permutation_test((few,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(few) == pytest.approx(exact.pvalue)
    many = draw(6, 200) - 0.03
    by_normal = 2 * stats.norm.sf(abs(many.sum()) / np.sqrt((many**2).sum()))
    assert sign_flip(many, resamples=40_000) == pytest.approx(by_normal, abs=0.01)


def test_sign_flip_never_gives_zero():
    assert sign_flip(np.ones(50), resamples=999) == pytest.approx(1 / 1000)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


@given(p_values, st.randoms())
def test_holm_keeps_order_and_lies_between_raw_and_bonferroni(p, rng):
    adjusted = holm(p)
    assert (adjusted >= np.array(p)).all()
    assert (adjusted <= np.minimum(1, np.array(p) * len(p)) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()
    order = list(range(len(p)))
    rng.shuffle(order)
    assert holm([p[k] for k in order]) == pytest.approx(adjusted[order])


def test_standard_error():
    values = draw(7)
    assert standard_error(values) == pytest.approx(stats.sem(values))
    # Groups of unequal size, by the formula for a ratio of means.
    groups = ["a", "a", "b", "c", "c", "c"]
    x = np.array([1.0, 0, 1, 0, 0, 1])
    residuals = [1 - 2 * 0.5, 1 - 0.5, 1 - 3 * 0.5]
    expected = np.sqrt(3 / 2 * sum(r * r for r in residuals)) / 6
    assert standard_error(x, groups=groups) == pytest.approx(expected)
    assert np.isnan(standard_error([1.0]))


def power_by_enumeration(n, share, change):
    """Of McNemar's test, over all counts of items that turned better and worse."""
    better, worse = (share + change) / 2, (share - change) / 2
    total = 0.0
    for up in range(n + 1):
        for down in range(n + 1 - up):
            if mcnemar([0] * up + [1] * down, [1] * up + [0] * down) <= 0.05:
                total += stats.multinomial.pmf(
                    [up, down, n - up - down], n, [better, worse, 1 - share]
                )
    return total


@pytest.mark.parametrize(("n", "discordance"), [(20, 0.5), (25, 0.3), (25, 0.0)])
def test_detectable_share_has_the_power(n, discordance):
    change = detectable_share(n, discordance)
    share = max(discordance, change)
    assert power_by_enumeration(n, share, change) == pytest.approx(0.8, abs=1e-3)


def test_detectable_share_falls_with_items_and_rises_with_discordance():
    assert detectable_share(5, 0.1) == 1.0  # five of five is p = 0.0625
    assert detectable_share(1000, 0.1) < detectable_share(200, 0.1) < detectable_share(200, 0.4)
    # The textbook's normal approximation: (1.96 sqrt(d) + 0.84 sqrt(d - x^2)) / sqrt(n) = x
    x = detectable_share(1000, 0.1)
    normal = (1.95996 * 0.1**0.5 + 0.84162 * (0.1 - x * x) ** 0.5) / 1000**0.5
    assert x == pytest.approx(normal, rel=0.06)


def test_minimum_detectable_effect():
    differences = draw(8, 300)
    error = stats.sem(differences)
    assert minimum_detectable_effect(differences) == pytest.approx(2.80158 * error, rel=1e-4)
    assert minimum_detectable_effect(differences, power=0.9) > 2.80158 * error
    # Nothing changed: what a handful of changes, all one way, would be.
    nothing = minimum_detectable_effect(np.zeros(200))
    assert nothing == pytest.approx(detectable_share(200, 0.0))
    assert 6 / 200 < nothing < 10 / 200
    assert minimum_detectable_effect(np.zeros(400), groups=list(range(200)) * 2) == nothing


@pytest.mark.slow
def test_minimum_detectable_effect_is_detected_as_often_as_said():
    rng = np.random.default_rng(1)
    base = rng.normal(0, 0.3, 100)
    effect = minimum_detectable_effect(base)
    shown = sum(
        sign_flip(rng.normal(effect, base.std(), 100), resamples=500, seed=k) <= 0.05
        for k in range(500)
    )
    assert shown / 500 == pytest.approx(0.8, abs=0.06)


def test_spearman_agrees_with_scipy():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 8, 40).astype(float)  # many ties
    y = x + rng.normal(0, 4, 40)
    found = spearman(x, y, resamples=2000)
    assert found.estimate == pytest.approx(stats.spearmanr(x, y).statistic)
    rows = rng.integers(40, size=(2000, 40))
    brute = [stats.spearmanr(x[row], y[row]).statistic for row in rows]
    assert (found.low, found.high) == pytest.approx(np.quantile(brute, [0.025, 0.975]), abs=0.03)


def test_spearman_draws_languages_whole():
    rng = np.random.default_rng(0)
    language = np.repeat(range(5), [8, 3, 6, 4, 9])
    x = rng.normal(size=30) + language
    y = rng.normal(size=30) - language
    found = spearman(x, y, groups=language.tolist(), resamples=2000)
    brute = []
    for _ in range(2000):
        row = np.concatenate([np.flatnonzero(language == k) for k in rng.integers(5, size=5)])
        brute.append(stats.spearmanr(x[row], y[row]).statistic)
    assert (found.low, found.high) == pytest.approx(np.quantile(brute, [0.025, 0.975]), abs=0.04)
    assert found.high - found.low > 1.3 * np.ptp([*vars(spearman(x, y)).values()][1:])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(numbers, numbers), min_size=3, max_size=15))
def test_spearman_is_antisymmetric_and_bounded(points):
    x, y = map(np.array, zip(*points))
    found, flipped = spearman(x, y, resamples=200), spearman(x, -y, resamples=200)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert np.isnan(found.estimate)
        assert np.isnan(found.low)
    else:
        assert -1 <= found.low <= found.high <= 1
        assert found.estimate == pytest.approx(-flipped.estimate)
        assert found.low == pytest.approx(-flipped.high)


def test_smallest_setting_within_one_standard_error():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 1, 200)  # what all settings share must not count as error
    best = hard + 0.30
    close = best - 0.01 + rng.normal(0, 0.2, 200)  # 0.014 the error of the difference
    worse = best - 0.05 + rng.normal(0, 0.2, 200)
    scores = [best, close - (close - best).mean() - 0.01, worse - (worse - best).mean() - 0.05]
    assert one_standard_error_choice(scores, [3, 2, 1]) == 1
    assert one_standard_error_choice(scores, [1, 2, 3]) == 0
    # Of one size, the better one.
    assert one_standard_error_choice([scores[1], best], [1, 1]) == 1
    # One item only has no error: the best.
    assert one_standard_error_choice([[0.1], [0.2]], [1, 2]) == 1
