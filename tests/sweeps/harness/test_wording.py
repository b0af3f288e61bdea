import pytest

from sweeps.harness.wording import counted


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 trials"), (1, "1 trial"), (2, "2 trials"), (60_000, "60,000 trials")],
)
def test_a_count_agrees_with_its_noun(count, words):
    assert counted(count, "trial") == words
