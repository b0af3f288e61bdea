"""Loads a study's own code: its networks, its recorders, or a run without training.

The module `program` in a study's folder may define any of these names:

    build(trial) -> keras.Model          replaces the networks of `models`
    RECORDERS = {"name": Recorder, ...}  recorders besides those of `recorders`
    prepare(model, trial)                prepares the network for a trial with another seed
    run(trial, dataset) -> History       replaces training

The fingerprint of a trial's code covers this module, or all modules of a package `program`. It may
import the harness and kerasbn, but no other module of its study.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import keras

    from sweeps.harness.trial import Trial


class Program(NamedTuple):
    """A study's own code.

    Attributes:
        build: Function of (trial) that returns the network, which maps images to logits. `None`
            uses the network that `Trial.architecture` names.
        prepare: Function of (model, trial). Trials that differ only in seed and learning rate share
            a network, so it sets whatever else depends on the seed. The harness has then drawn the
            kernels and reset the seeds of random layers.
        run: Function of (trial, `Dataset`) that returns the `History` of a run without the usual
            training. `None` trains the network.
        recorders: Recorders by name; see `sweeps.harness.training.recorders`.
    """

    build: Callable[[Trial], keras.Model] | None = None
    prepare: Callable[[keras.Model, Trial], None] = lambda model, trial: None
    run: Callable[[Trial, Any], Any] | None = None
    recorders: Mapping[str, Callable[..., Any]] = MappingProxyType({})


def load(study: str | None) -> Program:
    """The program of a study. `None` stands for a study without one.

    Raises:
        RuntimeError: If the study's module `program` defines none of the names above.
    """
    if study is None:
        return Program()
    module = importlib.import_module(f"sweeps.{study}.program")
    names = {"build": "build", "prepare": "prepare", "run": "run", "recorders": "RECORDERS"}
    found = {field: vars(module)[name] for field, name in names.items() if name in vars(module)}
    if not found:
        raise RuntimeError(
            f"{module.__file__} defines none of {', '.join(names.values())}. Define one of them, "
            "or leave out program= in the study's trials."
        )
    return Program(**found)
