"""The flags that are a contract with the users of `python -m sweeps.NAME`."""

import importlib

import pytest
from absl import flags as absl_flags

from sweeps import catalog
from sweeps.harness.cli import command, study
from sweeps.harness.data import DataSize

CONTRACT = {
    "batch_norm": None,
    "dataset": "auto",
    "data_dir": None,
    "results_dir": "runs",
    "seeds": 6,
    "hidden_units": (500, 400, 300, 200, 100, 50, 25),
    "activation": "relu",
    "learning_rate": 0.01,
    "batch_size": 500,
    "max_steps": 1000,
    "eval_every": 1,
    "target_accuracy": None,
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
    "quick": False,
}
LEFT_OUT = object()
ONCE = {"max_steps": LEFT_OUT, "eval_every": LEFT_OUT}
BY_EPOCH = {"max_steps": None, "eval_every": LEFT_OUT}
UNTRAINED = {
    **ONCE,
    **dict.fromkeys(("jit_compile", "learning_rate", "save_models", "target_accuracy"), LEFT_OUT),
}
# For each study: the defaults that differ from those above.
STUDIES = {
    "depth": {"seeds": 10, "learning_rate": (0.01,)},
    "tuned": {
        "eval_every": 5,
        "learning_rate": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1),
        "seeds": 6,
    },
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
    "gradients": {**ONCE, "activation": ("relu", "sigmoid")},
    "batch_size": {
        **ONCE,
        "batch_size": (1, 2, 4, 8, 16, 32, 128, 500),
        "bn_layer": LEFT_OUT,
        "bn_logits": False,
        "hidden_units": (500, 400, 300),
        "jit_compile": True,
    },
    "regularization": {**BY_EPOCH, "hidden_units": (500, 400, 300)},
    "moving_average": {
        "batch_norm": LEFT_OUT,
        "bn_layer": LEFT_OUT,
        "bn_momentum": LEFT_OUT,
        "eval_every": LEFT_OUT,
        "max_steps": 300,
    },
    "noise": {"bn_logits": LEFT_OUT, "learning_rate": 0.1, "max_steps": 250},
    "only_batch_norm": {
        "batch_norm": LEFT_OUT,
        "batch_size": 100,
        "bn_logits": LEFT_OUT,
        "eval_every": 50,
        "hidden_units": (500, 400, 300),
        "max_steps": 600,
    },
    "corruption": {
        "batch_size": 100,
        "bn_logits": LEFT_OUT,
        "eval_every": LEFT_OUT,
        "hidden_units": (6, 16, 120, 84),
        "jit_compile": True,
        "learning_rate": 0.002,
        "max_steps": 400,
    },
    "residual": {
        "batch_size": 128,
        "bn_logits": LEFT_OUT,
        "eval_every": LEFT_OUT,
        "hidden_units": LEFT_OUT,
        "learning_rate": (0.001, 0.01, 0.03, 0.1, 0.3, 1.0),
        "max_steps": 200,
    },
}
STUDIES |= {
    "rank": {
        **UNTRAINED,
        "activation": ("linear", "relu"),
        "batch_size": 512,
        "bn_layer": LEFT_OUT,
        "bn_logits": LEFT_OUT,
        "bn_momentum": LEFT_OUT,
        "hidden_units": LEFT_OUT,
    },
    "exponential_rate": {
        "batch_norm": LEFT_OUT,
        "batch_size": 256,
        "bn_epsilon": 1e-30,
        "bn_layer": LEFT_OUT,
        "bn_logits": LEFT_OUT,
        "bn_momentum": LEFT_OUT,
        "eval_every": LEFT_OUT,
        "hidden_units": (100, 100),
        "jit_compile": LEFT_OUT,
        "learning_rate": (0.2, 1.0),
        "max_steps": 200,
        "save_models": LEFT_OUT,
        "seeds": 10,
        "target_accuracy": LEFT_OUT,
    },
    "variance_shift": {
        **BY_EPOCH,
        "batch_norm": LEFT_OUT,
        "bn_layer": LEFT_OUT,
        "bn_logits": LEFT_OUT,
        "hidden_units": (100,) * 7,
        "learning_rate": 0.003,
    },
}
# Commands that are no studies have a few of the flags, and nothing else in common with them.
OTHERS = {
    "cost": {
        "dataset": "auto",
        "data_dir": None,
        "results_dir": "runs",
        "quick": False,
        "threads": None,
    },
    "tools": {
        "dataset": "auto",
        "data_dir": None,
        "results_dir": "runs",
        "quick": False,
        "seeds": 6,
    },
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


def left_out():
    return [(name, flag) for name, own in STUDIES.items() for flag in own if own[flag] is LEFT_OUT]


@pytest.mark.parametrize(("name", "flag"), left_out())
def test_an_error_about_a_flag_that_a_study_lacks_gives_the_reason(capsys, name, flag):
    assert study.main(catalog.study(name), [name, f"--{flag}=1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    start = f"error: {name} has no --{flag}: "
    assert line.startswith(start)
    assert line.endswith(".")
    assert len(line) > len(start) + 20


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("gradients", "--max_steps=5", "training ends with the last of --record_steps."),
        ("batch_size", "--max_steps=5", "--examples"),
        ("moving_average", "--nobatch_norm", "moving_average has no --batch_norm: all its netw"),
        ("moving_average", "--eval_every=5", "use --record_every"),
        ("depth", "--max_step=5", "depth has no --max_step. Did you mean --max_steps?"),
        ("depth", "--max-steps=5", "depth has no --max-steps. Did you mean --max_steps?"),
        ("depth", "--zzz", "depth has no --zzz. See --help."),
    ],
)
def test_an_error_about_an_unknown_flag_names_the_right_one(capsys, name, given, expected):
    assert study.main(catalog.study(name), [name, given]) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("depth", "--hidden_units=100 50", "'100 50' is not a whole number. Separate values with"),
        ("depth", "--hidden_units=100 50", "with commas: 100,50"),
        ("depth", "--hidden_units=[100, 50]", "Separate values with commas: 100,50"),
        ("depth", "--hidden_units=100;many", "'100;many' is not a whole number"),
        ("depth", "--hidden_units=", "'' is not a whole number"),
        ("depth", "--seeds=five", "'five' is not a whole number"),
        ("activation", "--learning_rate=0.1,0.2", "'0.1,0.2' is not a number"),
        ("depth", "--learning_rate=0.1;0.2", "with commas: 0.1,0.2"),
        ("tuned", "--learning_rate=0.1 fast", "'0.1 fast' is not a number"),
        ("learning_rate", "--learning_rate=0.1 0.2", "with commas: 0.1,0.2"),
        ("activation", "--activation=relu tanh", "with commas: relu,tanh"),
        ("gradients", "--record_steps=0 10", "with commas: 0,10"),
        ("batch_size", "--batch_size=(4, 8)", "with commas: 4,8"),
        ("regularization", "--l2=0 0.1", "with commas: 0,0.1"),
        ("depth", "--hidden_units=100,0", "0 is not a positive integer"),
    ],
)
def test_a_value_that_is_no_number_gets_a_sentence(capsys, name, given, expected):
    assert study.main(catalog.study(name), [name, given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line
    assert "literal" not in line
    assert ("commas" in line) == ("commas" in expected or "Separate" in expected)


@pytest.mark.parametrize("name", sorted(n for n in STUDIES if "target_accuracy" not in STUDIES[n]))
@pytest.mark.parametrize(
    ("dataset", "given", "target"),
    [
        ("mnist", [], 0.9),
        ("custom", [], 0.9),
        ("fashion_mnist", [], 0.8),
        ("fashion_mnist", ["--target_accuracy=0.85"], 0.85),
    ],
)
def test_the_default_target_depends_on_the_data_set(defined, name, dataset, given, target):
    values = defined(name)
    values([name, *given])
    trials = catalog.study(name).trials(values, DataSize(dataset, 60_000))
    assert {trial.target_accuracy for trial in trials} == {target}


def test_depth_takes_several_rates(defined):
    values = defined("depth")
    values(["depth", "--learning_rate=0.003,0.01", "--seeds=1"])
    several = catalog.study("depth").trials(values, DataSize("mnist", 60_000))
    assert len(several) == 7 * 2 * 2
    values(["depth", "--learning_rate=0.01", "--seeds=1"])
    published = catalog.study("depth").trials(values, DataSize("mnist", 60_000))
    assert [trial for trial in several if trial.learning_rate == 0.01] == published


# For each study that trains for epochs: its number of training examples, and flags for an epoch of
# ten steps.
EPOCHS = {
    "initialization": (1000, ["--batch_size=100"]),
    "lenet": (1000, ["--batch_size=100"]),
    "regularization": (4000, ["--batch_size=100", "--train_examples=1000"]),
}


def first_trial(defined, name, *argv):
    examples, flags = EPOCHS[name]
    values = defined(name)
    values([name, *flags, "--epochs=3", *argv])
    return catalog.study(name).trials(values, DataSize("custom", examples))[0]


@pytest.mark.parametrize("name", EPOCHS)
@pytest.mark.parametrize(("limit", "steps", "every"), [(25, 25, 10), (20, 20, 10), (4, 4, 4)])
def test_max_steps_ends_a_study_by_epochs(defined, name, limit, steps, every):
    trial = first_trial(defined, name, f"--max_steps={limit}")
    assert (trial.max_steps, trial.eval_every, trial.steps_per_execution) == (steps, every, 10)
    assert trial.record_steps[-1] == steps  # the last evaluation follows
    assert len(set(trial.record_steps)) == len(trial.record_steps)


@pytest.mark.parametrize("name", EPOCHS)
def test_a_limit_that_is_not_reached_changes_no_trial(defined, name):
    trial = first_trial(defined, name)
    assert trial.max_steps == 30
    assert first_trial(defined, name, "--max_steps=30").id == trial.id
    assert first_trial(defined, name, "--max_steps=1000").id == trial.id


# The first trial's id of each study at its defaults on MNIST. A change would make users run their
# finished trials again.
FIRST_IDS = {
    "activation": "142ada5238b301b8",
    "batch_size": "3f47d7bb05392222",
    "corruption": "20b0ab36ba7a49d9",
    "depth": "c40de7dba53dc2f0",
    "distribution": "95287b5124c72857",
    "exponential_rate": "c408c2d5d2708a4a",
    "gradients": "193bd6b7759ff87e",
    "initialization": "d13a78f6e1e29c07",
    "learning_rate": "33446fdd1cc90522",
    "lenet": "ddf7cac3194986b3",
    "moving_average": "f1b98eed2c9663ec",
    "noise": "80200ea9d7f9a252",
    "only_batch_norm": "d2935dbf45b7c0b1",
    "rank": "bd96c9a3f579987f",
    "regularization": "c38cce5149a125e3",
    "residual": "1f7772fe01e525f4",
    "tuned": "953995954a1b5242",
    "variance_shift": "f4341281ad8091db",
}


@pytest.mark.parametrize("name", STUDIES)
def test_the_default_trials_keep_their_ids(defined, name):
    values = defined(name)
    values([name])
    examples = 1800 if name == "initialization" else 60_000
    trials = catalog.study(name).trials(values, DataSize("mnist", examples))
    assert trials[0].id == FIRST_IDS[name]
