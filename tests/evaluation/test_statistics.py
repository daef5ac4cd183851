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
    paired_interval,
    sign_flip,
    sign_flip_any,
    spearman,
    standard_error,
)

numbers = st.floats(-1, 1).map(lambda value: round(value, 3))
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def draw(seed, n=80):
    rng = np.random.default_rng(seed)
    return rng.normal(0.1, 0.3, n) * (rng.random(n) < 0.5)


def test_the_interval_is_of_the_means_that_the_test_allows():
    """Inside its bounds a mean is no surprise, outside it is; few groups and many, even or not."""
    for n, sizes in ((7, [1] * 7), (11, [3, 1, 2, 5, 1, 1, 2, 4, 1, 1, 3]), (40, [1, 2] * 20)):
        groups = np.repeat(range(n), sizes).tolist()
        values = np.random.default_rng(n).normal(0.2, 1, len(groups))
        found = paired_interval(values, groups=groups)
        width = found.high - found.low
        for bound, inwards in ((found.low, 1), (found.high, -1)):
            assert sign_flip(values - bound - 1e-3 * inwards * width, groups=groups) > 0.045
            assert sign_flip(values - bound + 1e-3 * inwards * width, groups=groups) < 0.055


def test_many_items_have_the_interval_of_a_normal():
    values = draw(1, 600)
    found = paired_interval(values)
    expected = stats.norm.interval(0.95, values.mean(), stats.sem(values))
    assert found.estimate == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(expected, abs=0.002)


def test_the_interval_in_parts_is_one_sample(monkeypatch):
    whole = paired_interval(draw(1))
    monkeypatch.setattr("clas_core.evaluation.judging.statistics._AT_ONCE", 1000)
    parts = paired_interval(draw(1))
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high), abs=0.005)


def test_six_groups_have_an_interval_and_five_have_none():
    six = [0.3, 0.1, 0.2, 0.5, 0.4, 0.6]
    found = paired_interval(six)
    assert (found.low, found.high) == pytest.approx((0.1, 0.6))  # p = 2 / 64 beyond them
    assert found.is_known
    for few in (six[:5], six[:2], six[:1], [1.91] * 5):
        found = paired_interval(few)
        assert found.estimate == pytest.approx(np.mean(few))
        assert not found.is_known
        assert found.as_dict() == {"estimate": found.estimate, "low": None, "high": None}
    assert not paired_interval([1.91] * 4, groups=["a paragraph"] * 4).is_known


@settings(max_examples=60)
@given(st.lists(numbers, min_size=6, max_size=30), st.integers(0, 5))
def test_the_interval_holds_the_estimate_stays_in_range_and_agrees_with_the_test(values, seed):
    found = paired_interval(values, resamples=500, seed=seed)
    assert min(values) - 1e-9 <= found.low <= found.estimate + 1e-9
    assert found.estimate - 1e-9 <= found.high <= max(values) + 1e-9
    assert found == paired_interval(values, resamples=500, seed=seed)
    if 0 not in values:  # else the test leaves out the zeros, and draws other patterns
        leaves_out_0 = found.low > 0 or found.high < 0
        assert leaves_out_0 == (sign_flip(values, resamples=500, seed=seed) <= 0.05)


def test_groups_are_drawn_whole():
    """Three copies of each item in a group tell no more than one."""
    differences = draw(4)
    copied, groups = np.tile(differences, 3), list(range(80)) * 3
    alone, grouped = paired_interval(differences), paired_interval(copied, groups=groups)
    assert (grouped.low, grouped.high) == pytest.approx((alone.low, alone.high))
    naive = paired_interval(copied)
    assert naive.high - naive.low < 0.7 * (alone.high - alone.low)
    assert standard_error(copied, groups=groups) == pytest.approx(standard_error(differences))
    assert sign_flip(copied, groups=groups) == pytest.approx(sign_flip(differences), abs=0.02)


@pytest.mark.parametrize("values", [[], [float("nan")], [[1.0]]])
def test_no_or_bad_items_are_refused(values):
    with pytest.raises(ValueError, match="finite"):
        paired_interval(values)
    with pytest.raises(ValueError, match="groups"):
        paired_interval([1.0], groups=["a", "b"])


@pytest.mark.slow
@pytest.mark.parametrize("groups", [6, 8, 10, 20, 60])
def test_coverage(groups):
    """The interval of 95 % holds the truth about that often for few groups and for many, also
    over correlated languages and groups of uneven size."""
    rng = np.random.default_rng(0)
    runs = 600
    held = np.zeros(3)
    naive = 0
    for seed in range(runs):
        found = paired_interval(rng.normal(0.1, 0.3, groups), resamples=1000, seed=seed)
        held[0] += found.low <= 0.1 <= found.high
        shared = rng.normal(0.1, 0.3, groups)  # of an item, in all of six languages
        many = (shared + rng.normal(0, 0.2, (6, groups))).ravel()
        member = list(range(groups)) * 6
        found = paired_interval(many, groups=member, resamples=1000, seed=seed)
        held[1] += found.low <= 0.1 <= found.high
        found = paired_interval(many, resamples=1000, seed=seed)
        naive += found.low <= 0.1 <= found.high
        sizes = rng.integers(1, 6, groups)
        member = np.repeat(range(groups), sizes).tolist()
        uneven = np.repeat(rng.normal(0.1, 0.2, groups), sizes) + rng.normal(0, 0.3, len(member))
        found = paired_interval(uneven, groups=member, resamples=1000, seed=seed)
        held[2] += found.low <= 0.1 <= found.high
    assert (held / runs > 0.92).all()
    assert (held / runs < 0.985).all()
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


def test_the_best_of_many_settings_is_no_news():
    """Of 40 settings without effect the best one's own interval leaves 0 out most of the time; that
    some setting gained is said as rarely as promised, and of a real gain it is said."""
    rng = np.random.default_rng(0)
    alone = said = 0
    for seed in range(150):
        shared = rng.normal(0, 1, 30)
        tried = shared * rng.choice([-1, 1], (40, 1)) * 0.5 + rng.normal(0, 1, (40, 30))
        best = tried[tried.mean(1).argmax()]
        alone += paired_interval(best, resamples=400, seed=seed).low > 0
        said += sign_flip_any(tried, resamples=400, seed=seed) <= 0.05
    assert alone > 45
    assert said <= stats.binom.ppf(0.999, 150, 0.05)
    tried[7] += 1.5
    assert sign_flip_any(tried) < 0.01
    assert sign_flip_any(-np.abs(tried)) == 1.0  # losses are no gains
    assert sign_flip_any(np.zeros((3, 9))) == 1.0


def test_one_setting_is_a_one_sided_test():
    values = draw(5, 9) + 0.1
    exact = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="greater"
    )
    assert sign_flip_any([values]) == pytest.approx(exact.pvalue)
    assert sign_flip_any([[1.0, 2.0, 3.0]]) == pytest.approx(1 / 8)


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
    assert detectable_share(5, 0.1) == np.inf  # five of five is p = 0.0625
    assert detectable_share(1000, 0.1) < detectable_share(200, 0.1) < detectable_share(200, 0.4)
    # The textbook's normal approximation: (1.96 sqrt(d) + 0.84 sqrt(d - x^2)) / sqrt(n) = x
    x = detectable_share(1000, 0.1)
    normal = (1.95996 * 0.1**0.5 + 0.84162 * (0.1 - x * x) ** 0.5) / 1000**0.5
    assert x == pytest.approx(normal, rel=0.06)


def test_minimum_detectable_effect():
    differences = draw(8, 300)
    error = stats.sem(differences)
    student = stats.t(299)
    by_hand = (student.ppf(0.975) + student.ppf(0.8)) * error
    assert minimum_detectable_effect(differences) == pytest.approx(by_hand)
    assert minimum_detectable_effect(differences, power=0.9) > by_hand
    # Nothing changed: what a handful of changes, all one way, would be.
    nothing = minimum_detectable_effect(np.zeros(200))
    assert nothing == pytest.approx(detectable_share(200, 0.0))
    assert 6 / 200 < nothing < 10 / 200
    assert minimum_detectable_effect(np.zeros(400), groups=list(range(200)) * 2) == nothing
    # Whatever five texts say, no test finds it more than chance.
    assert minimum_detectable_effect([5.0] * 40, groups=list(range(5)) * 8) == np.inf
    assert minimum_detectable_effect([0.5, 0.4, 0.6, 0.5, 0.4, 0.6]) < np.inf


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
    found = spearman(x, y)
    assert found.estimate == pytest.approx(stats.spearmanr(x, y).statistic)
    brute = stats.bootstrap(
        (x, y), lambda *v: stats.spearmanr(*v).statistic, paired=True, vectorized=False,
        n_resamples=500, rng=1,
    ).confidence_interval  # fmt: skip
    assert (found.low, found.high) == pytest.approx(tuple(brute), abs=0.07)


def test_spearman_leaves_languages_out_whole():
    rng = np.random.default_rng(0)
    language = np.repeat(range(5), [8, 3, 6, 4, 9])
    x = rng.normal(size=30) + language
    y = rng.normal(size=30) - language
    found = spearman(x, y, groups=language.tolist())
    left = [stats.spearmanr(x[language != k], y[language != k]).statistic for k in range(5)]
    error = np.sqrt(4 / 5 * ((np.arctanh(left) - np.arctanh(left).mean()) ** 2).sum())
    reach = stats.t.ppf(0.975, 3) * max(error, 1 / np.sqrt(27))
    expected = np.tanh(np.arctanh(found.estimate) + np.array([-reach, reach]))
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert found.high - found.low > 1.3 * np.ptp([*vars(spearman(x, y)).values()][1:])


def test_no_correlation_is_sure_of_few_languages():
    """Four that happen to lie in order, in all of their settings, are no proof; three tell
    nothing."""
    x = np.repeat(range(4), 5).astype(float)
    found = spearman(x, x, groups=x.tolist())
    assert (found.estimate, found.low < 0) == (1.0, True)
    found = spearman(x[:5], x[:5])
    assert not found.is_known  # without spread
    alone = spearman(np.arange(4.0), np.arange(4.0))
    assert (alone.estimate, alone.low < 0) == (1.0, True)
    assert not spearman(np.arange(3.0), np.arange(3.0)).is_known


@pytest.mark.slow
@pytest.mark.parametrize("languages", [4, 5, 8, 11])
@pytest.mark.parametrize("own", [0, 0.7])
@pytest.mark.parametrize("own_settings", [1, 8])
def test_spearman_covers(languages, own_settings, own):
    """Without any correlation, the interval leaves 0 out in 5 % of samples at most."""
    rng = np.random.default_rng(0)
    member = np.repeat(range(languages), own_settings).tolist()
    missed = 0
    for _ in range(400):
        x, y = (
            np.repeat(rng.normal(size=languages), own_settings) + own * rng.normal(size=len(member))
            for _ in "xy"
        )
        found = spearman(x, y, groups=member)
        missed += not found.low <= 0 <= found.high
    assert missed <= stats.binom.ppf(0.999, 400, 0.05)


@settings(max_examples=30)
@given(st.lists(st.tuples(numbers, numbers), min_size=4, max_size=15))
def test_spearman_is_antisymmetric_and_bounded(points):
    x, y = map(np.array, zip(*points))
    found, flipped = spearman(x, y), spearman(x, -y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert np.isnan(found.estimate)
        assert not found.is_known
        return
    assert found.estimate == pytest.approx(-flipped.estimate)
    if found.is_known:
        assert -1 <= found.low <= found.estimate <= found.high <= 1
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
    # One item, or one text, can't tell any from the best: the smallest.
    assert one_standard_error_choice([[0.1], [0.2]], [1, 2]) == 0
    one_text = [[0.1, 0.1], [0.2, 0.2]]
    assert one_standard_error_choice(one_text, [1, 2], groups=["a", "a"]) == 0
