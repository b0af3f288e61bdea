"""The catalog finds studies and claims in the folders of `sweeps`."""

from sweeps.harness.cli import catalog


def test_every_number_from_1_to_25_is_there():
    assert sorted(catalog.claims()) == list(range(1, 26))
