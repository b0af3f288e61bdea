import math

import keras
import numpy as np
import pytest
from small_training import images, trial

from sweeps.harness.engine.runner import batches
from sweeps.harness.training.estimator import (
    Estimator,
    EvalSpec,
    RecordSpec,
    TrainSpec,
    train_and_evaluate,
)
from sweeps.harness.training.models import build, model_fn
from sweeps.harness.training.test_set import TestSet, required_right

IMAGES, LABELS = images(400)
TEST_IMAGES, TEST_LABELS = IMAGES[300:], LABELS[300:]
IMAGES, LABELS = IMAGES[:300], LABELS[:300]


@pytest.fixture(scope="module")
def estimator():
    return Estimator(model_fn, trial())


def history(
    estimator, seed=3, max_steps=40, every=1, target=0.9, stop=True, curve=1, exact_until=0, **net
):
    estimator.initialize(trial(seed=seed, **net))
    return train_and_evaluate(
        estimator,
        TrainSpec(lambda: batches(IMAGES, LABELS, 50, seed), max_steps),
        EvalSpec(
            lambda: TestSet(TEST_IMAGES, TEST_LABELS), every, target, stop, curve, exact_until
        ),
    )


def naive_run(steps):
    """The same training as a plain Keras user writes it."""
    model = build(trial())
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    feed = batches(IMAGES, LABELS, 50, 3)
    losses, accuracies = [], []
    for _ in range(steps):
        model.reset_metrics()
        losses.append(float(model.train_on_batch(*next(feed))[0]))
        accuracies.append(model.evaluate(TEST_IMAGES, TEST_LABELS, verbose=0)[1])
    return losses, accuracies


def test_losses_and_accuracies_are_those_of_a_plain_keras_loop(estimator):
    losses, accuracies = naive_run(12)
    curve = history(estimator, max_steps=12, target=1.0).curve
    np.testing.assert_allclose([loss for _, loss, _ in curve], losses, rtol=1e-4)
    # One test image of the hundred: fused Adam rounds otherwise.
    np.testing.assert_allclose([a for _, _, a in curve], accuracies, atol=0.0101)


def test_steps_to_target_is_the_first_step_whose_accuracy_is_enough(estimator):
    _, accuracies = naive_run(25)
    first = next(i for i, a in enumerate(accuracies) if a >= 0.8) + 1
    result = history(estimator, target=0.8, curve=0)
    assert (result.reached, result.steps_to_target, result.final_step) == (True, first, first)
    assert result.final_accuracy >= 0.8


def test_with_eval_every_k_it_is_a_multiple_of_k(estimator):
    exact = history(estimator, target=0.8).steps_to_target
    assert history(estimator, target=0.8, every=4).steps_to_target == math.ceil(exact / 4) * 4


def test_a_target_out_of_budget_is_a_miss_without_a_number(estimator):
    result = history(estimator, max_steps=2, target=1.0, curve=0)
    assert (result.status, result.reached, result.steps_to_target) == ("done", False, None)
    assert result.seconds_to_target is None
    assert result.final_step == 2
    assert [accuracy is not None for _, _, accuracy in result.curve] == [False, True]


def test_training_goes_on_after_the_target_where_it_does_not_stop_there(estimator):
    stopped = history(estimator, target=0.8)
    result = history(estimator, target=0.8, stop=False)
    assert result.steps_to_target == stopped.steps_to_target
    assert result.final_step == 40
    assert result.best_accuracy == max(accuracy for _, _, accuracy in result.curve)


def test_a_call_of_several_steps_ends_where_something_is_looked_at(estimator):
    several = Estimator(model_fn, trial(steps_per_execution=4))
    several.initialize(trial())
    rows = train_and_evaluate(
        several,
        TrainSpec(lambda: batches(IMAGES, LABELS, 50, 3), 11, 4),
        EvalSpec(lambda: TestSet(TEST_IMAGES, TEST_LABELS), 6, 1.0, True),
        RecordSpec({}, (5,)),
    ).curve
    assert [step for step, _, _ in rows] == [4, 5, 6, 8, 11]
    losses = [loss for _, loss, _ in history(estimator, max_steps=11, target=1.0).curve]
    spans = [losses[:4], losses[4:5], losses[5:6], losses[6:8], losses[8:]]
    expected = [sum(span) / len(span) for span in spans]
    np.testing.assert_allclose([loss for _, loss, _ in rows], expected, rtol=1e-4)


def test_divergence_within_a_call_is_found_at_its_step():
    net = {"learning_rate": 1e30, "batch_norm": False, "activation": "linear"}
    found = []
    for steps in (1, 30):
        estimator = Estimator(model_fn, trial(**net, steps_per_execution=steps))
        estimator.initialize(trial(**net))
        run = train_and_evaluate(
            estimator,
            TrainSpec(lambda: batches(IMAGES, LABELS, 50, 3), 40, steps),
            EvalSpec(lambda: TestSet(TEST_IMAGES, TEST_LABELS), 40, 1.0, True),
        )
        found.append((run.status, run.final_step))
    assert found[0] == found[1]
    assert found[0][0] == "diverged"


def test_at_the_start_the_target_is_checked_after_every_step(estimator):
    spec = EvalSpec(lambda: None, 5, 0.8, True, exact_until=12)
    assert [step for step in range(1, 22) if spec.checks_target(step)] == [*range(1, 13), 15, 20]

    def found(exact_until):
        return history(estimator, target=0.8, every=40, curve=0, exact_until=exact_until)

    exact = history(estimator, target=0.8, curve=0).steps_to_target
    assert found(exact).steps_to_target == exact
    assert found(exact - 1).steps_to_target == 40


def test_calls_of_several_steps_stop_after_each_exact_step():
    several = Estimator(model_fn, trial(steps_per_execution=4))
    several.initialize(trial())
    rows = train_and_evaluate(
        several,
        TrainSpec(lambda: batches(IMAGES, LABELS, 50, 3), 9, 4),
        EvalSpec(lambda: TestSet(TEST_IMAGES, TEST_LABELS), 6, 1.0, True, exact_until=2),
    ).curve
    assert [step for step, _, _ in rows] == [1, 2, 4, 6, 8, 9]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_runs_that_differ_in_their_rate_share_a_compiled_step(optimizer):
    shared = Estimator(model_fn, trial(optimizer=optimizer, learning_rate=0.5))
    for rate in (0.001, 0.03):
        alone = Estimator(model_fn, trial(optimizer=optimizer, learning_rate=rate))
        curves = [history(each, max_steps=4, learning_rate=rate).curve for each in (shared, alone)]
        assert curves[0] == curves[1]
    assert len(shared._step._list_all_concrete_functions()) == 1


def test_a_decaying_rate_stays_as_compiled():
    net = {"learning_rate": 0.1, "decay_steps": 3.0}
    estimator = Estimator(model_fn, trial(**net))
    first, again = (history(estimator, max_steps=4, **net).curve for _ in range(2))
    assert first == again


def test_the_same_seed_gives_the_same_run_and_another_one_another(estimator):
    first, other, again = (history(estimator, seed=s, max_steps=5).curve for s in (3, 4, 3))
    assert first == again
    assert first != other


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged():
    # Linear: a ReLU can die at the first step, and its loss stays finite ever after.
    net = {"learning_rate": 1e30, "batch_norm": False, "activation": "linear"}
    result = history(Estimator(model_fn, trial(**net)), **net)
    assert (result.status, result.reached) == ("diverged", False)
    assert result.final_step < 40
    assert result.final_accuracy is None
    assert not math.isfinite(result.final_loss)


def test_initial_weights_depend_on_the_seed_and_on_no_global_generator():
    keras.utils.set_random_seed(1)
    first = build(trial()).get_weights()
    keras.utils.set_random_seed(2)
    again, other = build(trial()).get_weights(), build(trial(seed=4)).get_weights()
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert not (first[0] == other[0]).all()
    kernels = [w for w in first if w.ndim == 2]
    assert kernels[0].std() == pytest.approx((2 / 784) ** 0.5, rel=0.05)  # he_normal
    assert kernels[-1].max() <= (6 / 20) ** 0.5  # Glorot's uniform bound, 10 in and 10 out


def test_only_batch_norm_adds_weights_and_only_where_it_is_asked_for():
    plain, normalized = build(trial(batch_norm=False)), build(trial())
    weights = 784 * 20 + 20 + 20 * 10 + 10 + 10 * 10 + 10
    assert plain.count_params() == weights
    assert normalized.count_params() == weights + 4 * (20 + 10 + 10)
    assert build(trial(bn_logits=False)).count_params() == weights + 4 * (20 + 10)


@pytest.mark.parametrize("layer", ["kerasbn", "keras"])
def test_the_layer_is_the_one_asked_for(layer):
    found = [
        type(each) for each in build(trial(bn_layer=layer)).layers if "orm" in type(each).__name__
    ]
    assert {t.__module__.split(".")[0] for t in found} == {layer}
    assert len(found) == 3


@pytest.mark.parametrize("total", [1, 7, 100, 10_000])
def test_required_right_is_the_least_count_that_is_enough(total):
    for target in (0.001, 1 / 3, 0.9, 0.97, 0.1 + 0.2, 1.0):
        expected = next(k for k in range(total + 1) if k / total >= target)
        assert required_right(target, total) == expected


def test_an_early_answer_is_the_answer_of_all_images():
    generator = np.random.default_rng(5)
    labels = generator.integers(0, 10, 3000)
    images = np.arange(3000)  # an image is its own index, so that the classifier can be made up
    right = np.zeros(3000, bool)
    seen = []

    def classify(chosen, chosen_labels):
        seen.append(len(chosen))
        assert (labels[chosen] == chosen_labels).all()
        return right[chosen], generator.random(len(chosen)).astype("float32")

    test_set = TestSet(images, labels)
    # Shares about the target, on it (2700 of 3000), one off it, and the extremes.
    for count in [0, 2699, 2700, 2701, 3000, 1500, 2650, 2750, 2699, 2700]:
        right[:] = False
        right[generator.permutation(3000)[:count]] = True
        seen.clear()
        expected = count / 3000 if count >= 2700 else None
        assert test_set.accuracy(classify, at_least=0.9) == expected
        assert sum(seen) <= 3000
        assert test_set.accuracy(classify) == count / 3000


def test_images_that_were_wrong_come_first_and_settle_it_soon():
    right = np.ones(10_000, bool)
    right[4000:5500] = False
    seen = []

    def classify(chosen, _):
        seen.append(len(chosen))
        return right[chosen], right[chosen].astype("float32")

    test_set = TestSet(np.arange(10_000), np.zeros(10_000, int))
    assert test_set.accuracy(classify, at_least=0.9) is None
    seen.clear()
    assert test_set.accuracy(classify, at_least=0.9) is None
    assert seen == [1001]  # the least number that can exceed the 1000 allowed


def test_a_class_that_turns_out_wrong_comes_next():
    labels = np.arange(10_000) % 10
    right = np.ones(10_000, bool)
    seen = []

    def classify(chosen, _):
        seen.append(len(chosen))
        return right[chosen], np.where(right[chosen], 0.9, 0.1).astype("float32")

    test_set = TestSet(np.arange(10_000), labels)
    assert test_set.accuracy(classify) == 1.0  # now all of them are as easy
    right[labels == 3] = False
    seen.clear()
    assert test_set.accuracy(classify, at_least=0.95) is None
    # 501 in any order hold 50 of the class; its other 451 follow, where chance would take 4,500.
    assert sum(seen) < 1300


def test_batches_hold_every_image_once_an_epoch_in_an_order_of_the_seed():
    labels = np.arange(10, dtype=np.uint8)
    feed = batches(labels[:, None], labels, 3, seed=0)
    epochs = [np.concatenate([next(feed)[1] for _ in range(3)]) for _ in range(2)]
    assert all(len(set(epoch)) == 9 for epoch in epochs)  # ten by threes: one is left out
    assert epochs[0].tolist() != epochs[1].tolist()
    again = batches(labels[:, None], labels, 3, seed=0)
    images, _ = next(again)
    assert images[:, 0].tolist() == epochs[0][:3].tolist()
