"""Intervals of MaskedImputation against simulated errors and counts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scvi import REGISTRY_KEYS

from scovert.core.dataloaders._cells import Cells
from scovert.model.imputation._groups import group_table
from scovert.model.imputation._intervals import (
    Spread,
    TotalErrors,
    count_interval,
    coverage,
    log_errors,
    spread_of,
)
from scovert.model.imputation._levels import levels, nearest_totals
from scovert.model.imputation._panels import Panels, log_mean_shares


def test_a_new_total_lies_inside_as_often_as_it_should() -> None:
    """Whether many were counted or few, although the errors are drawn from another abundance."""
    rng = np.random.default_rng(0)
    inside = {25: [], 1000: []}
    for _ in range(1500):
        imputed = rng.uniform(50, 400, 40)
        true = rng.poisson(imputed * np.exp(0.3 + 0.1 * rng.standard_t(5, 40)))
        errors = TotalErrors.of(true, imputed, 0.9)
        for total, found in inside.items():
            new = rng.poisson(total * np.exp(0.3 + 0.1 * rng.standard_t(5)))
            lower, upper = errors.interval(np.array([total]))
            found.append(lower[0] <= new <= upper[0])
    assert all(0.88 < np.mean(found) < 0.97 for found in inside.values())


def test_few_errors_make_no_interval() -> None:
    totals = np.linspace(30, 90, 9)
    assert np.isfinite(TotalErrors.of(totals, totals[::-1], 0.9).quantile)
    errors = TotalErrors.of(totals[:8], totals[:8][::-1], 0.9)  # a ninth is beyond them too often
    assert np.isnan(errors.quantile)
    assert np.isnan(errors.factor(totals))
    assert np.isnan(TotalErrors.of(totals[:0], totals[:0], 0.9).interval(totals)).all()


def test_only_totals_that_were_imputed_as_20_or_more_have_errors() -> None:
    imputed = np.array([20.0, 19, 20.0])
    errors, totals = log_errors(np.array([0.0, 500, 39.5]), imputed)
    np.testing.assert_allclose(errors, np.log([0.5 / 20.5, 40 / 20.5]))
    assert totals.tolist() == [20, 20]


def level_of(true: np.ndarray, imputed: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Levels of genes that are not learnt: the first half is known, the totals of both are one."""
    n = len(true)
    measured = np.arange(2 * n) < n
    panels = Panels(measured[None], np.zeros((1, 2 * n), bool), measured[None])
    twice = (np.tile(values, 2)[None] for values in (true, imputed, near))
    return levels(*twice, panels)[0, n:]


def test_levels_are_moved_as_far_as_known_genes_ask_for() -> None:
    """Totals lie a share of the way from what is imputed to those of the nearest cells."""
    rng = np.random.default_rng(0)
    near = rng.uniform(200, 900, 60)
    imputed = near * np.exp(rng.normal(0, 0.3, 60))
    way = np.log((near + 0.5) / (imputed + 0.5))
    usual = np.abs(way) < 0.3
    for share in (0.0, 0.4, 1.0):
        true = rng.poisson(imputed * np.exp(share * way + rng.normal(0, 0.1, 60)))
        moved = level_of(true, imputed, near)
        np.testing.assert_allclose(moved[usual], share * way[usual], atol=0.06)
    assert not level_of(imputed**2 / near, imputed, near).any()
    assert not level_of(near[:8], imputed[:8], near[:8]).any()  # too few to tell
    assert not level_of(near, imputed, imputed).any()


def test_a_gene_that_responds_is_left_alone() -> None:
    """Known genes say that what is imputed is noise; two hidden ones are imputed far off."""
    rng = np.random.default_rng(0)
    near = rng.uniform(200, 900, 60)
    imputed = near * np.exp(rng.normal(0, 0.2, 60))
    measured = np.arange(62) < 60
    panels = Panels(measured[None], np.zeros((1, 62), bool), measured[None])
    totals = [np.r_[values, more][None] for values, more in ((near, [0, 0]), (imputed, [9e3, 20]))]
    found = levels(*totals, np.r_[near, 300, 300][None], panels)[0]
    way = np.log(near / imputed)
    assert found[:60] @ way / (way @ way) > 0.8
    assert np.abs(found[60:]).max() < 0.1


def test_genes_that_no_neighbour_learns_stay_where_they_are() -> None:
    imputed, near = np.random.default_rng(0).uniform(200, 900, (2, 60))
    true = near.copy()
    near[3] = np.nan
    moved = level_of(true, imputed, near)
    assert moved[3] == 0
    assert np.isfinite(moved).all()
    assert moved.any()


def test_totals_of_nearest_cells_are_those_of_their_shares() -> None:
    """Two kinds of cells that shared genes tell apart; hidden genes follow the kind."""
    rng = np.random.default_rng(1)
    n, n_genes = 400, 30
    kind = rng.permutation(np.arange(3 * n) % 2)
    kind[2 * n :] = rng.random(n) < 0.9  # another composition
    shares = rng.dirichlet(np.full(n_genes, 2.0), 2)
    x = rng.poisson(400 * shares[kind]).astype(np.float32)
    batch = np.repeat(np.arange(3), n)
    measured = np.ones((3, n_genes), bool)
    measured[2, 25:] = measured[0, 28:] = False
    measured[1, 27] = False
    seen = Cells(sp.csr_matrix(x * measured[batch]), {REGISTRY_KEYS.BATCH_KEY: batch[:, None]})
    found = nearest_totals(seen, Panels(measured, measured, measured))
    true = np.stack([x[batch == b].sum(0) for b in range(3)])
    np.testing.assert_allclose(found[2], true[2], rtol=0.1)
    np.testing.assert_allclose(found[0, 28:], true[0, 28:], rtol=0.1)
    of_mean = x[batch < 2].sum(0) * x[batch == 2][:, :25].sum() / x[batch < 2][:, :25].sum()
    assert np.abs(np.log(of_mean[25:] / true[2, 25:])).max() > 0.3
    alone = measured.copy()
    alone[:2, 26] = False
    found = nearest_totals(seen, Panels(alone, alone, alone))
    others_learn = np.stack([alone[np.arange(3) != b].any(0) for b in range(3)])
    np.testing.assert_array_equal(np.isfinite(found), others_learn)


def test_the_spread_of_genes_is_told_from_chance() -> None:
    rng = np.random.default_rng(0)
    imputed = rng.uniform(25, 60, 4000)
    for sd in (0.0, 0.5):
        true = rng.poisson(imputed * np.exp(rng.normal(0.2, sd, 4000)))
        found = spread_of(true, imputed)
        assert abs(found.centre - 0.2) < 0.03
        assert abs(found.sd - sd) < 0.06


def test_intervals_of_counts_hold_what_was_drawn() -> None:
    """Counts with errors of genes, an uncertain mean and overdispersion; too narrow without."""
    rng = np.random.default_rng(0)
    shape, spread, variation = (50, 2000), Spread(0.3, 0.4), 0.1
    mean, theta = rng.gamma(2, 3, shape), rng.uniform(1, 5, shape[1])
    error = rng.normal(spread.centre, spread.sd, shape[1])
    of_cell = rng.gamma(1 / variation, variation, shape)
    drawn = rng.poisson(mean * np.exp(error) * of_cell * rng.gamma(theta, 1 / theta, shape))
    given = (mean, np.full(shape, variation), theta)
    inside = coverage(drawn, *given, spread, 0.9).mean()
    assert 0.88 < inside < 0.92
    assert coverage(drawn, mean, np.zeros(shape), theta, Spread(0, 0), 0.9).mean() < inside - 0.05
    lower, upper = count_interval(*given, spread, 0.9)
    is_inside = (drawn >= lower) & (drawn <= upper)
    assert 0.9 < is_inside.mean() < 0.96  # counts are discrete: at least 0.9


def test_coverage_of_a_right_distribution_is_the_level() -> None:
    rng = np.random.default_rng(1)
    mean, theta = np.full((20000, 1), 0.3), np.array([2.0])  # most counts are 0
    drawn = rng.poisson(mean * rng.gamma(theta, 1 / theta, mean.shape))
    for level in (0.5, 0.9):
        found = coverage(drawn, mean, np.zeros_like(mean), theta, Spread(0, 0), level).mean()
        assert found == pytest.approx(level, abs=0.01)


def test_mean_shares_are_on_the_scale_of_the_shared_genes() -> None:
    """The second dataset has ten times the counts, and lacks a gene of half of all counts."""
    measured = np.array([[True] * 4, [True, True, True, False]])
    totals = np.array([[100.0, 200, 100, 400], [1000, 2000, 1000, 0]])
    shares = np.exp(log_mean_shares(totals, measured))
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.25, 1.0], rtol=0.01)


def test_groups_say_what_is_measured_and_why_an_interval_is_missing() -> None:
    learnt = np.array([[True] * 4, [True, False, False, False]])
    measured = np.array([[True] * 4, [True, True, False, False]])
    panels = Panels(measured, learnt, learnt)
    true = np.array([[50.0, 30, 20, 0], [100, 44, 0, 0]])
    imputed = np.array([[50.0, 30, 20, 1], [100, 40, 30, 3]])  # one error: enough for a half
    explained = np.array([[0.5, 0.5, 0.0, 0.5], [0.5, 0.5, np.nan, np.nan]])
    names = pd.MultiIndex.from_tuples([("a", "all"), ("b", "all")])
    table = group_table((true, imputed), np.array([0, 1]), names, panels, explained, 0.5)
    assert table["measured"].tolist() == measured.ravel().tolist()
    own = table[table["dataset"] == "b"]
    assert own["mean"].tolist() == [1e4, 4400, 3000, 300]
    ratio = 44.5 / 40.5  # the only error that is known
    for bound in ("lower", "upper"):  # the median of one error, and no distance from it
        np.testing.assert_allclose(own[bound], [np.nan, np.nan, 3000 * ratio, np.nan])
    reasons = ["", "", "hardly predicted where it was measured", "fewer than 20 imputed counts"]
    assert own["reason"].tolist() == reasons
