"""The configuration of one training run: everything that can change a number, and nothing else."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

# Hidden layers of the network in Rawles 2018; the network of depth d has the first d of them.
HIDDEN_UNITS = (500, 400, 300, 200, 100, 50, 25)
_ARMS = {False: "plain", True: "batch norm"}


def arm_name(batch_norm: bool) -> str:
    """The name of an arm in tables, charts and claims: "plain" or "batch norm"."""
    return _ARMS[bool(batch_norm)]


def _option(default: Any = None) -> Any:
    """An optional field of `Trial`.

    It is left out of the id at its default value, so adding a field keeps old ids valid.
    """
    return dataclasses.field(default=default, metadata={"option": True})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """The configuration of one training run, identified by its `id`.

    Paths, workers and display settings are not part of it. Options of the batch-norm layer are
    `None` in a plain network, so that equal runs have equal ids. For any other option, too, `None`
    means that it is off.

    Attributes:
        dataset: Name of the data set; see `sweeps.harness.data`.
        seed: Seed of the initial weights and of the order of the examples.
        hidden_units: Units of each hidden layer, first layer first.
        activation: Keras name of the hidden layers' activation.
        batch_norm: Whether a batch-norm layer precedes each hidden activation.
        bn_layer: `"kerasbn"` for `kerasbn.BatchNorm`, `"keras"` for
            `keras.layers.BatchNormalization`.
        bn_momentum: Weight of the old value in the moving averages.
        bn_epsilon: Constant added to the variance.
        bn_logits: Whether the output layer has batch norm, too.
        optimizer: Keras name of the optimizer.
        learning_rate: Learning rate of the optimizer.
        batch_size: Examples per training step.
        max_steps: Budget in training steps.
        target_accuracy: Share of the examples to classify correctly. `None` for a regression.
        eval_every: Steps between two checks of the target. 1 makes `steps_to_target` exact.
        curve_every: Steps between two full evaluations for the accuracy curve. 0 evaluates after
            the last step only.
        stop_at_target: Whether training ends when the target is reached.
        jit_compile: Whether XLA compiles the training step.
        architecture: `"dense"`, `"lenet"` (`hidden_units` are then its filters and dense units) or
            `"regression"` (one input, one output, no target accuracy).
        kernel_stddev: Standard deviation of normally distributed initial kernels. `None` keeps the
            architecture's own initializer.
        bias: Initial value of all biases. `None` means 0.
        decay_steps: Time constant of the learning rate's exponential decay, in training steps.
        bn_renorm: Whether batch norm is Batch Renormalization.
        bn_virtual_batch_size: Examples per ghost batch.
        group_norm: Number of groups of the GroupNormalization layer that replaces batch norm.
        dropout: Share of each hidden layer's outputs that training drops.
        l2: Factor of the squared kernels in the loss.
        train_examples: Number of training examples used, the same ones for every seed. `None` uses
            all.
        validation_examples: Number of training examples that are set aside for validation, the same
            ones for every seed. No trial with this number trains on them.
        evaluated_on: Examples that accuracies refer to: `"test"` or `"validation"`.
        exact_until: Number of steps at the start after each of which the target is checked,
            whatever `eval_every` is.
        steps_per_execution: Largest number of steps per call of the compiled function. The curve
            then has one row per call, with the mean loss of its steps.
        record: Names of the recorders to run; see `sweeps.harness.training.recorders`.
        record_steps: Steps after which the recorders measure. 0 is the start.
        program: Name of the study whose module `program` builds, runs or records the trial; see
            `sweeps.harness.training.programs`. `None` uses the harness alone.
        options: Settings that only this study has, by name. Each is a column of the tables.
            Values are numbers, strings or `None`. It takes a mapping, and holds sorted pairs.
    """

    dataset: str
    seed: int
    hidden_units: tuple[int, ...]
    activation: str = "relu"
    batch_norm: bool
    bn_layer: str | None = "kerasbn"
    bn_momentum: float | None = 0.9
    bn_epsilon: float | None = 1e-3
    bn_logits: bool | None = True
    optimizer: str = "adam"
    learning_rate: float
    batch_size: int
    max_steps: int
    target_accuracy: float | None
    eval_every: int = 1
    curve_every: int = 0
    stop_at_target: bool = True
    jit_compile: bool = False
    architecture: str = _option("dense")
    kernel_stddev: float | None = _option()
    bias: float | None = _option()
    decay_steps: float | None = _option()
    bn_renorm: bool | None = _option()
    bn_virtual_batch_size: int | None = _option()
    group_norm: int | None = _option()
    dropout: float | None = _option()
    l2: float | None = _option()
    train_examples: int | None = _option()
    validation_examples: int | None = _option()
    evaluated_on: str = _option("test")
    exact_until: int = _option(0)
    steps_per_execution: int = _option(1)
    record: tuple[str, ...] = _option(())
    record_steps: tuple[int, ...] = _option(())
    program: str | None = _option()
    options: tuple[tuple[str, Any], ...] = _option(())

    def __post_init__(self):
        for name in ("hidden_units", "record", "record_steps"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "options", tuple(sorted(dict(self.options).items())))
        if not self.batch_norm:
            for field in dataclasses.fields(self):
                if field.name.startswith("bn_"):
                    object.__setattr__(self, field.name, None)

    @property
    def arm(self) -> str:
        """The name of the trial's arm."""
        return arm_name(self.batch_norm)

    @property
    def depth(self) -> int:
        """The number of hidden layers."""
        return len(self.hidden_units)

    @property
    def settings(self) -> dict[str, Any]:
        """The depth, all fields and all options, by the name of their column in the tables."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        options = dict(self.options)
        return {"depth": self.depth, **fields, "options": tuple(options), **options}

    @property
    def id(self) -> str:
        """16 hexadecimal digits, the same for equal trials on every machine."""
        unused = {
            field.name
            for field in dataclasses.fields(self)
            if "option" in field.metadata and getattr(self, field.name) == field.default
        }
        fields = {name: value for name, value in self.to_json().items() if name not in unused}
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def network(self) -> Trial:
        """The trial with seed 0 and learning rate 0.

        Trials with equal networks can share a compiled training step. A learning rate that decays
        is compiled into the step, so it stays.
        """
        if self.decay_steps is not None:
            return dataclasses.replace(self, seed=0)
        return dataclasses.replace(self, seed=0, learning_rate=0.0)

    def to_json(self) -> dict[str, Any]:
        """The fields as values that JSON can represent."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields = {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}
        return {**fields, "options": dict(self.options)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Trial:
        """The inverse of `to_json`."""
        return cls(**fields)
