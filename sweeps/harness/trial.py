"""One training run's configuration: everything that can change a number, nothing that cannot."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """A training run, to be identified by its `id`; see the flags of the same names.

    Paths, workers and display are no part of it. The options of the batch-norm layer are `None`
    where there is no batch norm, so that they do not tell apart what is the same run.

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
    target_accuracy: float
    eval_every: int = 1
    curve_every: int = 0
    stop_at_target: bool = True
    jit_compile: bool = False

    def __post_init__(self):
        object.__setattr__(self, "hidden_units", tuple(self.hidden_units))
        if not self.batch_norm:
            for name in ("bn_layer", "bn_momentum", "bn_epsilon", "bn_logits"):
                object.__setattr__(self, name, None)

    @property
    def depth(self) -> int:
        """The number of hidden layers."""
        return len(self.hidden_units)

    @property
    def id(self) -> str:
        """16 hexadecimal digits, the same for equal trials on every machine."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def network(self) -> Trial:
        """The trial without its seed: trials of one network can share a compiled training step."""
        return dataclasses.replace(self, seed=0)

    def to_json(self) -> dict[str, Any]:
        """The fields, as JSON takes them."""
        return {**dataclasses.asdict(self), "hidden_units": list(self.hidden_units)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Trial:
        """The inverse of `to_json`."""
        return cls(**fields)
