import dataclasses

import pytest

from sweeps.harness.trial import Trial


def trial(**changes):
    fields = {
        "dataset": "mnist",
        "seed": 0,
        "hidden_units": (500, 400),
        "batch_norm": True,
        "learning_rate": 0.01,
        "batch_size": 500,
        "max_steps": 1000,
        "target_accuracy": 0.9,
    }
    return Trial(**fields | changes)


def test_id_is_the_same_on_every_machine():
    # Computed once by hand with hashlib and json; a change of it orphans everybody's stored trials.
    assert trial().id == "d24736c1762ab928"


CHANGES = {
    "dataset": "mnist_5k",
    "seed": 1,
    "hidden_units": (400, 500),
    "activation": "tanh",
    "batch_norm": False,
    "bn_layer": "keras",
    "bn_momentum": 0.99,
    "bn_epsilon": 1e-5,
    "bn_logits": False,
    "optimizer": "sgd",
    "learning_rate": 0.02,
    "batch_size": 100,
    "max_steps": 10,
    "target_accuracy": 0.95,
    "eval_every": 2,
    "curve_every": 5,
    "stop_at_target": False,
    "jit_compile": True,
    "architecture": "lenet",
    "kernel_stddev": 0.1,
    "bias": -0.2,
    "decay_steps": 167.0,
    "bn_renorm": True,
    "bn_virtual_batch_size": 16,
    "group_norm": 20,
    "dropout": 0.5,
    "l2": 1e-3,
    "train_examples": 5000,
    "validation_examples": 1000,
    "evaluated_on": "validation",
    "exact_until": 40,
    "steps_per_execution": 10,
    "record": ("gradients",),
    "record_steps": (0, 10),
    "program": "noise",
    "options": {"radius": 0.5},
}


def test_changes_cover_every_field():
    assert set(CHANGES) == {field.name for field in dataclasses.fields(Trial)}


@pytest.mark.parametrize("field", CHANGES)
def test_every_field_that_can_change_a_number_changes_the_id(field):
    assert trial(**{field: CHANGES[field]}).id != trial().id


def test_options_of_batch_norm_do_not_tell_plain_trials_apart():
    assert trial(batch_norm=False, bn_layer="keras", bn_momentum=0.5) == trial(batch_norm=False)


def test_json_round_trip():
    options = {"program": "noise", "options": {"radius": 0.5, "mode": "a"}}
    original = trial(hidden_units=(3, 2, 1), record=("gradients",), record_steps=(0, 10), **options)
    assert Trial.from_json(original.to_json()) == original


def test_the_order_of_options_does_not_matter():
    one, other = {"a": 1, "b": None}, {"b": None, "a": 1}
    assert trial(options=one) == trial(options=other)
    assert trial(options=one).id == trial(options=other).id


def test_settings_are_fields_and_options_by_name():
    settings = trial(options={"radius": 0.5}).settings
    assert (settings["depth"], settings["radius"], settings["options"]) == (2, 0.5, ("radius",))


def test_trials_of_one_network_differ_in_seed_and_rate_only():
    assert trial(seed=3).network == trial(seed=4, learning_rate=0.1).network
    assert trial(activation="tanh").network != trial().network


def test_a_rate_that_decays_belongs_to_the_network():
    rates = [trial(decay_steps=167.0, learning_rate=rate).network for rate in (0.1, 0.2)]
    assert rates[0] != rates[1]


def test_is_hashable_and_frozen():
    assert len({trial(), trial(), trial(seed=1)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        trial().seed = 1
