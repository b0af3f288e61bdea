"""Distributions by layer: shares in bins against NumPy's histograms of the values themselves."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sweeps.harness.charts.distributions import distributions, shares_in_bins


def row(values, bins, layer=1):
    counts, edges = np.histogram(values, bins)
    text = "-".join(map(str, counts))
    return SimpleNamespace(low=edges[0], high=edges[-1], counts=text, layer=layer)


def test_shares_are_those_of_the_values():
    values = np.random.default_rng(0).uniform(-1, 3, 20_000)
    edges = np.linspace(-2, 4, 7)
    expected = np.histogram(values, edges)[0] / len(values)
    np.testing.assert_allclose(shares_in_bins(row(values, 40), edges), expected, atol=0.01)


def test_bins_that_coincide_keep_their_counts():
    values = np.array([0.0, 0.1, 0.1, 0.9, 1.0])
    shares = shares_in_bins(row(values, 2), np.linspace(0, 1, 3))
    np.testing.assert_allclose(shares, [0.6, 0.4])


@pytest.mark.parametrize(("value", "place"), [(0.0, 0), (1.0, 3)])
def test_a_dead_layer_is_in_one_bin(value, place):
    dead = SimpleNamespace(low=value, high=value, counts="500-0")
    np.testing.assert_array_equal(shares_in_bins(dead, np.linspace(0, 1, 5)), np.eye(4)[place])


def test_each_layer_is_a_column():
    from matplotlib.figure import Figure

    rows = pd.DataFrame([vars(row([0.0, 1.0], 2, layer)) for layer in (2, 1, 3)])
    ax = distributions(rows, np.linspace(0, 1, 3), Figure().add_subplot())
    assert ax.collections[0].get_array().shape == (2, 3)
    assert ax.get_xlim() == (0.5, 3.5)
