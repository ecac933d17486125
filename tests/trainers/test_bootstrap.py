import numpy as np
import pytest

from trainers.bootstrap import (
    Interval,
    PairedDifference,
    bootstrap_interval,
    bootstrap_intervals,
    paired_bootstrap,
    paired_bootstraps,
)


@pytest.fixture
def values():
    return np.random.default_rng(1).random(400)


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution(values):
    interval = bootstrap_interval(values, num_resamples=4000)
    assert interval.mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert (interval.low, interval.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=half / 10)


def test_the_interval_is_that_of_resamples_drawn_one_by_one(values):
    generator = np.random.default_rng(0)
    means = [values[generator.integers(len(values), size=len(values))].mean() for _ in range(500)]
    expected = Interval(values.mean(), *np.quantile(means, [0.025, 0.975]))
    assert bootstrap_interval(values, num_resamples=500, seed=0) == pytest.approx(expected, abs=1e-12)


def test_draws_in_pieces_give_the_same_interval(values, monkeypatch):
    whole = bootstrap_interval(values, num_resamples=300)
    monkeypatch.setattr("trainers.bootstrap._COUNTS_AT_ONCE", 7 * len(values))
    assert bootstrap_interval(values, num_resamples=300) == whole


def test_the_seed_fixes_the_interval(values):
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_metrics_together_get_the_intervals_that_each_gets_alone(values):
    scores = {"one": values, "other": values**2}
    for name, interval in bootstrap_intervals(scores).items():
        assert interval == pytest.approx(bootstrap_interval(scores[name]), abs=1e-12)


def test_seeds_are_averaged_and_queries_are_drawn(values):
    seeds = np.stack([values, 1 - values])
    assert bootstrap_interval(seeds) == pytest.approx(Interval(0.5, 0.5, 0.5))
    assert bootstrap_interval(np.stack([values] * 3)) == pytest.approx(bootstrap_interval(values))


def test_a_system_that_is_better_everywhere_is_so_in_all_resamples(values):
    difference = paired_bootstrap(values + 0.25, values)
    assert difference == pytest.approx(PairedDifference(0.25, 0.25, 0.25, 1.0))
    assert paired_bootstrap(values, values + 0.25).share_positive == 0


def test_pairs_are_kept_together(values):
    """The same noise in both systems takes nothing from the certainty, other noise does."""
    noise = np.random.default_rng(2).random(len(values))
    together = paired_bootstrap(values + noise + 0.01, values + noise)
    apart = paired_bootstrap(values + noise + 0.01, values + noise[::-1])
    assert together.high - together.low < 1e-12
    assert apart.high - apart.low > 0.05


def test_systems_may_have_different_numbers_of_seeds(values):
    three = np.stack([values, values + 0.3, values + 0.6])
    assert paired_bootstrap(three, values).difference == pytest.approx(0.3)
    assert paired_bootstrap(three, values[None]).share_positive == 1


def test_only_metrics_of_both_systems_are_compared(values):
    compared = paired_bootstraps({"em": values, "f1": values}, {"em": values, "mrr": values})
    assert list(compared) == ["em"]
    assert compared["em"] == PairedDifference(0, 0, 0, 0)


def test_other_shapes_are_refused(values):
    with pytest.raises(ValueError, match=r"have the shape \(0,\)"):
        bootstrap_interval(np.array([]))
    with pytest.raises(ValueError, match=r"have the shape \(1, 1, 400\)"):
        bootstrap_interval(values[None, None])
    with pytest.raises(ValueError, match="scored on 400 and 399 queries"):
        paired_bootstrap(values, values[1:])
