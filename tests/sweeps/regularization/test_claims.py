"""The rules of the regularization study, on tables made by hand for each verdict."""

import pytest
from claim_tables import NO, YES, assert_verdict, rows_of, trial, trials


@pytest.mark.parametrize(
    ("train", "regularized", "verdict"),
    [
        (0.96, 0.952, YES),
        (0.96, 0.90, "depends on the part: it is true that the gap is smaller"),
        (1.0, 0.90, NO),
    ],
)
def test_regularization(judge, train, regularized, verdict):
    frame = trials(
        trial(batch_norm=False, dropout=None, l2=None, train=0.98, test=0.94),
        trial(batch_norm=False, dropout=0.5, l2=None, train=0.96, test=0.95),
        trial(batch_norm=True, dropout=None, l2=None, train=train, test=0.95),
        trial(batch_norm=True, dropout=0.5, l2=None, train=0.96, test=regularized),
    )
    evaluation = rows_of(
        frame,
        "evaluation",
        lambda t: [
            {"step": s, "data": d, "accuracy": getattr(t, d) if s else 0.1}
            for s in (0, 300)
            for d in ("train", "test")
        ],
    )
    assert_verdict(judge(20, trials=frame, evaluation=evaluation), verdict)
