"""The runner splits the data, and reuses a compiled network."""

import numpy as np
import pytest
import small_training
import tensorflow as tf

from sweeps.harness.data import Dataset
from sweeps.harness.engine.runner import Runner, split


@pytest.fixture(scope="module")
def dataset():
    images, labels = small_training.images(500)
    images = images.copy()
    images[:, 0, 0], images[:, 0, 1] = np.arange(500) // 256, np.arange(500) % 256  # the number
    return Dataset("custom", images[:400], labels[:400], images[400:], labels[400:], "a test")


def numbers(examples):
    """The numbers of the images, after a check of their labels."""
    images, labels = examples
    found = 256 * images[:, 0, 0].astype(int) + images[:, 0, 1]
    assert (labels == found % 256 % 10).all()  # the labels of `small_training` wrap at 256
    return found.tolist()


def test_without_a_split_all_examples_train_in_their_order(dataset):
    parts = split(dataset, None, None)
    assert sorted(parts) == ["test", "train"]
    assert numbers(parts["train"]) == [*range(400)]
    assert numbers(parts["test"]) == [*range(400, 500)]


@pytest.mark.parametrize(("train", "count"), [(None, 300), (50, 50), (1000, 300)])
def test_validation_examples_are_set_aside(dataset, train, count):
    parts = split(dataset, train, 100)
    found = {name: numbers(part) for name, part in parts.items()}
    assert len(found["validation"]) == 100
    assert len(found["train"]) == count
    assert found["test"] == [*range(400, 500)]
    assert set(found["train"]) | set(found["validation"]) <= set(range(400))
    assert not set(found["train"]) & set(found["validation"])
    assert len(np.unique(parts["validation"][1])) == 10  # drawn at random, not the first ones
    assert found["validation"] != sorted(found["validation"])


def test_the_same_examples_are_drawn_every_time(dataset):
    validation = {len(split(dataset, n, 100)["train"][1]): split(dataset, n, 100) for n in (5, 60)}
    assert len({tuple(numbers(parts["validation"])) for parts in validation.values()}) == 1
    assert numbers(validation[60]["train"])[:5] == numbers(validation[5]["train"])
    assert numbers(split(dataset, 60, None)["train"]) == numbers(split(dataset, 60, None)["train"])


@pytest.fixture(scope="module")
def runner(dataset):
    return Runner(dataset, tf.config.threading.get_intra_op_parallelism_threads(), True)


def test_each_trial_is_evaluated_on_its_own_set(dataset, runner, tmp_path):
    import keras

    found = {}
    for name in ("validation", "test"):
        trial = small_training.trial(max_steps=6, validation_examples=100, evaluated_on=name)
        result = runner.run(trial)
        path = tmp_path / f"{name}.keras"
        path.write_bytes(result["model"])
        images, labels = split(dataset, None, 100)[name]
        logits = keras.models.load_model(path)(images)
        found[name] = result["final_accuracy"], float((logits.numpy().argmax(1) == labels).mean())
    for reported, expected in found.values():
        assert reported == pytest.approx(expected)
    assert found["validation"] != found["test"]


def test_one_network_is_compiled_for_all_seeds_and_rates(runner):
    first = small_training.trial(max_steps=2)
    runner.run(first)
    compiled = runner._estimator
    for changes in ({"seed": 9}, {"learning_rate": 0.1}, {"seed": 1, "learning_rate": 0.3}):
        runner.run(small_training.trial(max_steps=2, **changes))
        assert runner._estimator is compiled
    runner.run(small_training.trial(max_steps=2, hidden_units=(7,)))
    assert runner._estimator is not compiled
