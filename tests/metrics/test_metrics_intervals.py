"""In: counts and values with known answers. Out: intervals and tests agree with scipy and cover what they should."""

import random

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from toolformer.metrics import bootstrap, mcnemar, paired_bootstrap, wilson


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(counts: tuple[int, int]) -> None:
    k, n = counts
    expected = scipy.stats.binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-9)
    low, high = wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1


def test_wilson_of_nothing_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_mcnemar_is_the_exact_binomial_test(pairs: list[tuple[bool, bool]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    result = mcnemar(first, second)
    n = result.only_first + result.only_second
    assert result.p == pytest.approx(scipy.stats.binomtest(result.only_first, n).pvalue if n else 1.0)
    assert mcnemar(second, first) == (result.only_second, result.only_first, result.p)


def test_mcnemar_takes_thousands_of_rows() -> None:
    assert mcnemar([True] * 5000, [False] * 5000).p == 0.0
    assert mcnemar([True, False] * 2500, [False, True] * 2500).p == 1.0


def test_bootstrap_is_near_the_normal_interval_and_repeats() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    low, high = bootstrap(values.tolist(), seed=1, draws=4000)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)
    assert (low, high) == bootstrap(values.tolist(), seed=1, draws=4000)
    assert (low, high) != bootstrap(values.tolist(), seed=2, draws=4000)


def test_bootstrap_draws_whole_requests() -> None:
    draw = random.Random(0)
    values = [draw.random() for _ in range(50)]
    low, high = bootstrap(values, seed=0)
    copied = bootstrap(values * 9, seed=0, requests=list(range(50)) * 9)
    assert copied == pytest.approx((low, high))
    alone = bootstrap(values * 9, seed=0)
    assert alone[1] - alone[0] < (high - low) / 2


def test_bootstrap_edges() -> None:
    assert bootstrap([], seed=0) == (0.0, 1.0)
    assert bootstrap([0.25], seed=0) == (0.25, 0.25)


def test_the_paired_bootstrap_sees_a_small_steady_gain_and_no_gain_in_noise() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(0, 5, 300)
    gain = paired_bootstrap(first.tolist(), (first + rng.normal(0.5, 0.5, 300)).tolist(), seed=0)
    assert gain.low > 0.4 and gain.high < 0.6 and gain.p < 0.01
    nothing = paired_bootstrap(first.tolist(), rng.permutation(first).tolist(), seed=0)
    assert nothing.low < 0 < nothing.high and nothing.p > 0.05
    swapped = paired_bootstrap([1.0, 2.0, 3.0], [0.0, 0.0, 0.0], seed=0)
    assert swapped.value == -2.0 and swapped.high < 0


def test_runs_of_different_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="numbers of rows are 2 and 3"):
        mcnemar([True, False], [True, False, True])
    with pytest.raises(ValueError, match="numbers of rows are 1 and 0"):
        paired_bootstrap([1.0], [], seed=0)
    with pytest.raises(ValueError, match="number of rows is 0"):
        paired_bootstrap([], [], seed=0)
