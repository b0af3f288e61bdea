"""One training run's configuration: everything that can change a number, nothing that cannot."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any


def _option(default: Any = None) -> Any:
    """A field that depth does without: at its default it is no part of the id, which thus lasts."""
    return dataclasses.field(default=default, metadata={"option": True})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """A training run, to be identified by its `id`; see the flags of the same names.

    Paths, workers and display are no part of it. The options of the batch-norm layer are `None`
    where there is no batch norm, so that they do not tell apart what is the same run. `None` means
    elsewhere, too, that there is no such thing.

    Attributes: dataset: The data that was used, by the name of `sweeps.harness.data`. seed: Of the
        initial weights and of the order of the examples. hidden_units: Units of each hidden layer,
        from the first. activation: Keras's name of the hidden layers' activation. batch_norm:
        Whether a batch-norm layer stands before each hidden activation. bn_layer: "kerasbn"
        (`kerasbn.BatchNorm`) or "keras" (`keras.layers.BatchNormalization`). bn_momentum: Weight of
        the old average. bn_epsilon: Added to the variance. bn_logits: Whether the output layer has
        batch norm, too. optimizer: Keras's name. learning_rate: Of the optimizer. batch_size:
        Examples a training step. max_steps: Budget, in training steps. target_accuracy: The share
        of the test set to classify rightly. eval_every: Steps from one look at the target to the
        next; 1 makes `steps_to_target` exact. curve_every: Steps from one full evaluation to the
        next, for the curve; 0: the last step alone. stop_at_target: Whether training ends there.
        jit_compile: Whether steps are compiled by XLA.

        architecture: "dense", "lenet" (hidden_units are its filters, then its dense units) or
        "regression", of one number from one, which has no target accuracy. kernel_stddev: Standard
        deviation of normally distributed initial kernels; `None`: the architecture's own. bias: The
        initial value of all biases, where it is not 0. decay_steps: Time constant of the learning
        rate's exponential decay, in training steps. bn_renorm: Whether batch norm is Batch
        Renormalization. bn_virtual_batch_size: Examples a ghost batch. group_norm: Groups of a
        GroupNormalization in batch norm's place. dropout: Share of each hidden layer's outputs that
        training drops. l2: Factor of the kernels' squares in the loss. train_examples: How many
        training images are used, the same for every seed. steps_per_execution: Keras's name: up to
        so many steps run in one call, and the curve has a row for each call, with their mean loss.
        record: What is measured besides; see `sweeps.harness.recorders`. record_steps: The steps
        after which it is, 0 for the start.
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
    steps_per_execution: int = _option(1)
    record: tuple[str, ...] = _option(())
    record_steps: tuple[int, ...] = _option(())

    def __post_init__(self):
        for name in ("hidden_units", "record", "record_steps"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.batch_norm:
            for field in dataclasses.fields(self):
                if field.name.startswith("bn_"):
                    object.__setattr__(self, field.name, None)

    @property
    def depth(self) -> int:
        """The number of hidden layers."""
        return len(self.hidden_units)

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
        """The trial without its seed: trials of one network can share a compiled training step."""
        return dataclasses.replace(self, seed=0)

    def to_json(self) -> dict[str, Any]:
        """The fields, as JSON takes them."""
        fields = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Trial:
        """The inverse of `to_json`."""
        return cls(**fields)
