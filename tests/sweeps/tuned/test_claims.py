"""The rules of the tuned study, on tables made by hand for each verdict."""

import pytest
from claim_tables import NO, YES, assert_verdict
from tuned_tables import REPORTING, network, of_rates, trials

from sweeps.harness import claims

SPREAD = [-2, -1, -1, 0, 0, 0, 0, 1, 1, 2]  # of ten seeds around their median


def spread(middle):
    """Steps of ten seeds."""
    return None if middle is None else [middle + each for each in SPREAD]


def study(deep_plain, deep_normed, *, published=(53, 18)):
    """A study with depths 1 and 7, which selects 0.003 everywhere.

    Seeds that are fast in other networks are slow in the tuned plain network of depth 7.
    """

    def of(depth, batch_norm, tuned, at_published):
        selecting = {0.001: 60, 0.003: 20, 0.01: 30}
        return network(depth, batch_norm, selecting, {0.003: tuned, 0.01: spread(at_published)})

    slow = None if deep_plain is None else spread(deep_plain)[::-1]
    return trials(
        *of(1, False, spread(17), 20),
        *of(1, True, spread(16), 20),
        *of(7, False, slow, published[0]),
        *of(7, True, spread(deep_normed), published[1]),
    )


@pytest.mark.parametrize(
    ("deep_plain", "deep_normed", "verdict"),
    [
        (28, 16, YES),
        (None, 16, YES),
        (
            16,
            16,
            "depends on the part: it is true that tuned networks with batch norm need no more",
        ),
        (28, 28, "depends on the part: it is true that tuned plain networks need more steps"),
        (16, 28, NO),
        (21, 16, "undecided"),  # the interval of 21 / 17 contains 1.25
    ],
)
def test_growth_with_depth(judge, deep_plain, deep_normed, verdict):
    finding = judge(26, trials=study(deep_plain, deep_normed))
    assert_verdict(finding, verdict)
    assert "times the steps of 1 layer without batch norm" in finding.measured
    assert len(finding.rows) == 4
    assert finding.rows[0]["Selected rate"] == "0.003"


@pytest.mark.parametrize(
    ("deep_plain", "deep_normed", "published", "verdict", "share"),
    [
        (28, 16, (53, 18), YES, "0.657"),
        (28, 16, (None, 18), YES, "1 "),
        (45, 16, (53, 18), NO, "0.171"),
        (33, 16, (53, 18), "undecided", "0.514"),
        (None, 16, (53, 18), NO, "-inf"),
    ],
)
def test_share_that_tuning_saves(judge, deep_plain, deep_normed, published, verdict, share):
    finding = judge(27, trials=study(deep_plain, deep_normed, published=published))
    assert_verdict(finding, verdict)
    assert f"tuning saves {share}" in finding.measured


def test_the_share_of_the_logarithm_is_shown(judge):
    finding = judge(27, trials=study(28, 16))
    assert "0.482 [" in finding.measured  # 1 - log(28 / 16) / log(53 / 18)


@pytest.mark.parametrize(
    ("deep_plain", "published", "words"),
    [
        (28, (18, 18), "saves no steps at the published rate"),
        (None, (None, 18), "plain networks miss the target at both rates"),
    ],
)
def test_nothing_to_save_is_undecided(judge, deep_plain, published, words):
    with pytest.raises(claims.UndecidedError, match=words):
        judge(27, trials=study(deep_plain, 16, published=published))


GRID = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)


def tolerances(plain, normed):
    """A selection at depth 7 with these medians at every rate."""
    return trials(
        *of_rates(7, False, dict(zip(GRID, plain, strict=True))),
        *of_rates(7, True, dict(zip(GRID, normed, strict=True))),
    )


@pytest.mark.parametrize(
    ("plain", "normed", "verdict", "words"),
    [
        (
            *((90, 40, 28, 53, None, None), (68, 27, 16, 18, 25, 41), YES),
            "plain: from 0.001 to 0.01, and 4 of 6 rates reach the target; batch norm: from 0.001 "
            "to 0.03, and 6 of 6 rates reach the target",
        ),
        (
            *((46, 28, 31, 53, None, None), (68, 27, 16, 18, 25, 41), NO),
            "plain: from 0.0003 (the lowest rate tried) to 0.01, and 4 of 6",
        ),
        (  # some seeds do not tolerate 0.03
            *((90, 40, 28, 53, None, None), (68, 27, 16, 18, [31, 31, 31, 31, 40, 40], 41)),
            *("undecided", "from 0.001 to 0.03"),
        ),
    ],
)
def test_rate_tolerance(judge, plain, normed, verdict, words):
    finding = judge(28, trials=tolerances(plain, normed))
    assert_verdict(finding, verdict)
    assert words in finding.measured


def test_no_rate_that_reaches_the_target_is_undecided(judge):
    with pytest.raises(claims.UndecidedError, match="no rate reaches the target for plain"):
        judge(28, trials=tolerances((None,) * 6, (68, 27, 16, 18, 25, 41)))


def honest():
    """Selection and report with other numbers at the same rates.

    On the seeds of the selection, the selected rate of the deep plain network needs 17 steps: it
    was lucky there. On new seeds it needs 28.
    """
    lucky = {0.001: 40, 0.003: [17, 17, 17, 17, 17, 17], 0.01: 30}
    return trials(
        *network(1, False, {0.001: 30, 0.003: 16, 0.01: 20}, {0.003: spread(17), 0.01: spread(20)}),
        *network(1, True, {0.001: 30, 0.003: 16, 0.01: 20}, {0.003: spread(16), 0.01: spread(20)}),
        *network(7, False, lucky, {0.003: spread(28), 0.01: spread(53)}),
        *network(7, True, {0.001: 30, 0.003: 16, 0.01: 20}, {0.003: spread(16), 0.01: spread(18)}),
    )


def with_seeds_of_the_selection(frame):
    """The same study, reported on the trials that the rates were selected with."""
    selecting = frame[frame.evaluated_on == "validation"]
    reused = selecting.assign(
        evaluated_on="test", seed=selecting.seed + REPORTING[0], trial_id=selecting.trial_id + "r"
    )
    return trials(*selecting.to_dict("records"), *reused.to_dict("records"))


def test_reporting_on_the_seeds_of_the_selection_would_give_another_verdict(judge):
    assert_verdict(judge(26, trials=honest()), YES)
    dishonest = judge(26, trials=with_seeds_of_the_selection(honest()))
    assert not dishonest.verdict.startswith(YES)
    assert "0.657" in judge(27, trials=honest()).measured


def test_no_better_test_result_at_another_rate_is_taken(judge):
    better = of_rates(7, False, {0.001: 9}, evaluated_on="test")
    frame = trials(*honest().to_dict("records"), *better)
    assert judge(26, trials=frame).measured == judge(26, trials=honest()).measured


def test_a_selection_at_the_edge_of_the_grid_is_in_the_verdict(judge):
    frame = honest()
    frame = frame[(frame.learning_rate > 0.001)]  # 0.003 becomes the lowest rate
    verdict = judge(26, trials=frame).verdict
    assert verdict.startswith("reproduced: a better rate may lie outside the grid for plain at 1")
    verdict = judge(27, trials=frame).verdict
    assert verdict.endswith("for plain at 7 layers and batch norm at 7 layers")


def test_an_arm_without_a_rate_that_reaches_the_target_is_in_the_verdict(judge):
    frame = honest()
    deep = (frame.depth == 7) & ~frame.batch_norm
    frame.loc[deep & (frame.evaluated_on == "validation"), "steps_to_target"] = None
    added = of_rates(7, False, {0.001: None}, evaluated_on="test")  # its lowest rate is selected
    verdict = judge(26, trials=trials(*frame.to_dict("records"), *added)).verdict
    assert "no tried rate reaches the target for plain at 7 layers" in verdict


def test_missing_evidence_is_undecided(judge):
    frame = honest()
    cases = {
        "no runs on the test set": frame[frame.evaluated_on == "validation"],
        "no runs on the validation set": frame[frame.evaluated_on == "test"],
        "selected with 5 seeds; 6 are needed": frame[
            (frame.evaluated_on == "test") | (frame.seed < 5)
        ],
        "no rate was selected for plain at": frame[frame.batch_norm],
        "no runs of plain at 7 layers on the test set at rate 0.003": frame[
            ~((frame.depth == 7) & ~frame.batch_norm & (frame.evaluated_on == "test"))
        ],
    }
    for words, kept in cases.items():
        for number in (26, 27):
            with pytest.raises(claims.UndecidedError, match=words):
                judge(number, trials=kept)


def test_too_few_reporting_seeds_are_undecided(judge):
    frame = honest()
    kept = frame[(frame.evaluated_on == "validation") | (frame.seed < REPORTING[5])]
    assert judge(26, trials=kept).verdict.startswith("undecided: 5 seeds")


def test_tolerance_needs_both_arms(judge):
    frame = tolerances((90, 40, 28, 53, None, None), (68, 27, 16, 18, 25, 41))
    with pytest.raises(claims.UndecidedError, match="batch_norm=False"):
        judge(28, trials=frame[frame.batch_norm])
