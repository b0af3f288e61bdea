"""The defaults of the flags that are a contract with the users of `python -m sweeps.NAME`."""

import importlib

import pytest
from absl import flags as absl_flags

from sweeps.harness.cli import catalog, command, study

CONTRACT = {
    "batch_norm": None,
    "dataset": "auto",
    "data_dir": None,
    "results_dir": "runs",
    "seeds": 5,
    "hidden_units": (500, 400, 300, 200, 100, 50, 25),
    "activation": "relu",
    "learning_rate": 0.01,
    "batch_size": 500,
    "max_steps": 1000,
    "eval_every": 1,
    "target_accuracy": 0.9,
    "bn_momentum": 0.9,
    "bn_epsilon": 0.001,
    "bn_logits": True,
    "bn_layer": "kerasbn",
    "workers": None,
    "threads": 1,
    "scheduler": None,
    "overwrite": False,
    "mix_versions": False,
    "fail_fast": False,
    "tensorboard": False,
    "jit_compile": False,
    "save_models": False,
}
LEFT_OUT = object()
BY_EPOCH = {"max_steps": LEFT_OUT, "eval_every": LEFT_OUT}
# For each study: the defaults that differ from those above.
STUDIES = {
    "depth": {},
    "activation": {
        "activation": ("relu", "sigmoid", "tanh", "elu", "leaky_relu"),
        "max_steps": 300,
    },
    "learning_rate": {
        "activation": ("relu", "sigmoid"),
        "batch_size": 60,
        "bn_logits": False,
        "eval_every": 10,
        "hidden_units": (100, 100, 100),
        "learning_rate": (0.02, 0.1, 0.6, 3.0),
        "max_steps": 2000,
    },
    "lenet": {
        **BY_EPOCH,
        "activation": "sigmoid",
        "batch_size": 256,
        "bn_logits": LEFT_OUT,
        "hidden_units": (6, 16, 120, 84),
        "jit_compile": True,
        "learning_rate": (0.9, 1.0),
        "seeds": 3,
    },
    "initialization": {
        **BY_EPOCH,
        "activation": ("relu", "tanh"),
        "batch_size": 64,
        "bn_logits": LEFT_OUT,
        "bn_momentum": 0.5,
        "dataset": "parabola",
        "hidden_units": (10,) * 8,
        "learning_rate": 0.03,
        "target_accuracy": LEFT_OUT,
    },
    "distribution": {
        "activation": "sigmoid",
        "batch_size": 60,
        "bn_logits": False,
        "eval_every": 20,
        "hidden_units": (100, 100, 100),
        "learning_rate": 0.1,
        "max_steps": 5000,
    },
    "gradients": {**BY_EPOCH, "activation": ("relu", "sigmoid")},
    "batch_size": {
        **BY_EPOCH,
        "batch_size": (1, 2, 4, 8, 16, 32, 128, 500),
        "bn_layer": LEFT_OUT,
        "bn_logits": False,
        "hidden_units": (500, 400, 300),
        "jit_compile": True,
        "seeds": 3,
    },
    "regularization": {**BY_EPOCH, "hidden_units": (500, 400, 300)},
    "moving_average": {
        "batch_norm": LEFT_OUT,
        "bn_layer": LEFT_OUT,
        "bn_momentum": LEFT_OUT,
        "eval_every": LEFT_OUT,
        "max_steps": 300,
    },
}
# Commands that are no studies have a few of the flags, and nothing else in common with them.
OTHERS = {
    "cost": {"dataset": "auto", "data_dir": None, "results_dir": "runs", "threads": None},
    "tools": {"dataset": "auto", "data_dir": None, "results_dir": "runs", "seeds": 5},
    "report": {"results_dir": "runs"},
}


@pytest.fixture
def defined(monkeypatch):
    """Returns the flags of a command, defined as its command line defines them."""

    def defined(name):
        of_study = catalog.study(name)
        if of_study is None:
            found = importlib.import_module(f"sweeps.{name}.__main__").COMMAND
        else:
            made = []
            monkeypatch.setattr(command, "main", lambda each, argv: made.append(each))
            study.main(of_study, [name])
            (found,) = made
        values = absl_flags.FlagValues()
        found.define_flags(values)
        return values

    return defined


def defaults(values):
    """The defaults of the contract's flags, lists as tuples."""
    found = {name: values[name].default for name in CONTRACT if name in values}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_has_the_flags_and_defaults_of_the_contract(defined, name):
    expected = {**CONTRACT, **STUDIES[name]}
    assert defaults(defined(name)) == {k: v for k, v in expected.items() if v is not LEFT_OUT}


@pytest.mark.parametrize("name", OTHERS)
def test_other_commands_have_some_of_them(defined, name):
    assert defaults(defined(name)) == OTHERS[name]


def test_no_command_is_left_out():
    assert {*STUDIES, *OTHERS} == set(catalog.commands())
