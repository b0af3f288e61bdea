"""Training with evaluation, in the terms of `tf.estimator`, on Keras 3.

    estimator = Estimator(model_fn, params)
    history = train_and_evaluate(
        estimator, TrainSpec(batches, 1000), EvalSpec(test_set, 1, 0.9, True)
    )

Steps to target are exact without classifying the whole test set after every step. An evaluation
ends as soon as more images are wrong than the target allows. Those that were given the least
probability of their class before, and those of the classes that this net confuses, come first,
since they are the likeliest to be wrong: about two thousand images settle what ten thousand would.
All are classified when the target is reached, and for the curve.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from sweeps.harness.training.models import EstimatorSpec
from sweeps.harness.training.test_set import TestSet


class TrainSpec(NamedTuple):
    """Where the training batches come from, and how many steps to take at most.

    Attributes:
        input_fn: Returns an endless iterator of (images, labels), NumPy arrays of one batch size.
        max_steps: Budget in training steps.
        steps_per_execution: Up to so many steps run in one call of the compiled function.
    """

    input_fn: Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]
    max_steps: int
    steps_per_execution: int = 1


class EvalSpec(NamedTuple):
    """When to look at the test set, and for what.

    Attributes:
        input_fn: Returns the `TestSet`.
        every_steps: Steps between two looks at the target.
        target_accuracy: Share of the test set that must be right; `None`: there are no classes, and
            the test set is not looked at.
        stop_at_target: Whether training ends when it is.
        curve_every: Steps between two full evaluations; 0: after the last step alone.
    """

    input_fn: Callable[[], TestSet]
    every_steps: int
    target_accuracy: float | None
    stop_at_target: bool
    curve_every: int = 0


class Recorder(Protocol):
    """Measures something in the course of a run; see `sweeps.harness.training.recorders`."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the values in a row."""

    def start(self) -> None:
        """A run begins."""

    def after_execution(self) -> None:
        """The training step (or several) was taken."""

    def rows(self, step: int) -> list[tuple]:
        """What is found after a step, 0 for the start; the run goes on as if nothing was."""


class RecordSpec(NamedTuple):
    """What to measure besides, and when.

    Attributes:
        recorders: By name.
        steps: After which steps; 0: at the start.
    """

    recorders: Mapping[str, Recorder] = MappingProxyType({})
    steps: tuple[int, ...] = ()


@dataclasses.dataclass
class History:
    """What a training run gave.

    Attributes: status: "done", or "diverged" where the loss became NaN or infinite, which ends the
        run. reached: Whether the target was. steps_to_target: The first step (of those looked at)
        after which it was; `None` if none. seconds_to_target: Time of the training steps up to
        there, without evaluation or compilation. final_step: Steps taken. final_accuracy: On the
        whole test set after the last step; `None` if diverged. best_accuracy: The best of the full
        evaluations; `None` if there was none. final_loss: Training loss of the last batch.
        seconds_per_step: Median over the training steps. seconds_total: All of it, evaluation
        included. curve: (step, training loss, test accuracy or `None` where it was not measured in
        full). With several steps an execution: the loss is their mean. recorded: For each recorder
        its columns and rows, of which the first value is the step.
    """

    status: str = "done"
    reached: bool = False
    steps_to_target: int | None = None
    seconds_to_target: float | None = None
    final_step: int = 0
    final_accuracy: float | None = None
    best_accuracy: float | None = None
    final_loss: float | None = None
    seconds_per_step: float | None = None
    seconds_total: float | None = None
    curve: list[tuple[int, float, float | None]] = dataclasses.field(default_factory=list)
    recorded: dict[str, dict[str, list]] = dataclasses.field(default_factory=dict)


class Estimator:
    """A network with its compiled training step, for any number of runs that differ in their seed.

    Args: model_fn: Makes the `EstimatorSpec` from `params`. params: Its argument; `batch_size`,
        `jit_compile` and `steps_per_execution` are read from it.

    Attributes: model: The network. loss: Its loss, of (labels, outputs).
    """

    def __init__(self, model_fn: Callable[[Any], EstimatorSpec], params: Any):
        self._params = params
        spec = model_fn(params)
        self.model, self._optimizer, self.loss = spec.model, spec.optimizer, spec.loss
        self._draw_weights = spec.draw_weights
        self._optimizer.build(self.model.trainable_variables)
        self._variables = [*self.model.variables, *self._optimizer.variables]
        self._start = [tf.identity(v) for v in self._variables]
        image, (target_shape, target_dtype) = self.model.inputs[0], spec.target
        self._batch = [
            tf.TensorSpec([spec.batch_size, *image.shape[1:]], image.dtype),
            tf.TensorSpec([spec.batch_size, *target_shape], target_dtype),
        ]
        self._step = self._compiled_step()
        self._steps = self._compiled_steps() if params.steps_per_execution > 1 else None
        self._classify = self._compiled_classification()
        # Tracing and the first call take seconds, which are no part of any run's time.
        shapes = [(params.batch_size, *each.shape[1:]) for each in self._batch]
        dtypes = [each.dtype.as_numpy_dtype for each in self._batch]
        x, y = map(np.zeros, shapes, dtypes)
        self.train_steps([(x, y)])

    def initialize(self, params: Any) -> None:
        """Starts over: initial weights of `params` (the same network), and a fresh optimizer."""
        for variable, start in zip(self._variables, self._start, strict=True):
            variable.assign(start)
        self._draw_weights(params)

    def train_steps(self, batches: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
        """A step on each batch; returns the losses, each from before its step."""
        if self._steps is None:
            return [float(self._step(*batch).numpy()) for batch in batches]
        images, labels = zip(*batches, strict=True)
        return self._steps(np.stack(images), np.stack(labels)).numpy().tolist()

    def classify(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether each image is classified rightly, and the probability that its class is given.

        In inference mode: batch norm uses its moving averages.
        """
        right, probability = self._classify(images, labels)
        return right.numpy(), probability.numpy()

    def _compiled_step(self):
        @tf.function(input_signature=self._batch, jit_compile=self._params.jit_compile)
        def step(images, labels):
            with tf.GradientTape() as tape:
                loss = self.loss(labels, self.model(images, training=True))
                loss += tf.add_n(self.model.losses) if self.model.losses else 0.0
            variables = self.model.trainable_variables
            self._optimizer.apply(tape.gradient(loss, variables), variables)
            return loss

        return step

    def _compiled_steps(self):
        several = [tf.TensorSpec([None, *spec.shape], spec.dtype) for spec in self._batch]

        @tf.function(input_signature=several)
        def steps(images, labels):
            count = tf.shape(labels)[0]
            losses = tf.TensorArray(tf.float32, count)
            for i in tf.range(count):
                losses = losses.write(i, self._step(images[i], labels[i]))
            return losses.stack()

        return steps

    def _compiled_classification(self):
        image = self.model.inputs[0]
        signature = [tf.TensorSpec(image.shape, image.dtype), tf.TensorSpec([None], tf.uint8)]

        @tf.function(input_signature=signature, jit_compile=self._params.jit_compile)
        def classify(images, labels):
            logits = self.model(images, training=False)
            labels = tf.cast(labels, tf.int32)
            right = tf.argmax(logits, -1, output_type=tf.int32) == labels
            return right, tf.gather(tf.nn.softmax(logits), labels, batch_dims=1)

        return classify


def train_and_evaluate(
    estimator: Estimator,
    train_spec: TrainSpec,
    eval_spec: EvalSpec,
    record_spec: RecordSpec = RecordSpec(),  # noqa: B008  it is immutable
) -> History:
    """Trains to the target (if it ends there), the budget's end, or a loss that is not finite."""
    start = time.perf_counter()
    history = History()
    test_set, classify = eval_spec.input_fn(), estimator.classify
    batches = train_spec.input_fn()
    seconds = []
    for name, recorder in record_spec.recorders.items():
        recorder.start()
        history.recorded[name] = {"columns": list(recorder.columns), "rows": []}
    _record(history, record_spec, 0)
    step = 0
    while step < train_spec.max_steps:
        fed = [next(batches) for _ in range(_next_stop(step, train_spec, eval_spec, record_spec))]
        before = time.perf_counter()
        losses = estimator.train_steps(fed)
        seconds += [(time.perf_counter() - before) / len(fed)] * len(fed)
        finite = np.isfinite(losses)
        if not finite.all():
            taken = int(np.argmin(finite)) + 1
            history.final_step, history.final_loss = step + taken, losses[taken - 1]
            history.status, history.final_accuracy = "diverged", None
            history.curve.append((history.final_step, history.final_loss, None))
            break
        step += len(fed)
        history.final_step, history.final_loss = step, losses[-1]
        for recorder in record_spec.recorders.values():
            recorder.after_execution()
        targeted = eval_spec.target_accuracy is not None
        target = eval_spec.target_accuracy or 0.0
        looking = targeted and not history.reached and step % eval_spec.every_steps == 0
        on_curve = eval_spec.curve_every > 0 and step % eval_spec.curve_every == 0
        accuracy = None
        if targeted and (on_curve or step == train_spec.max_steps):
            accuracy = test_set.accuracy(classify)
        elif looking:
            accuracy = test_set.accuracy(classify, at_least=target)
        history.curve.append((step, sum(losses) / len(losses), accuracy))
        history.final_accuracy = accuracy
        _record(history, record_spec, step)
        if looking and accuracy is not None and accuracy >= target:
            history.reached = True
            history.steps_to_target, history.seconds_to_target = step, sum(seconds)
            if eval_spec.stop_at_target:
                break
    history.best_accuracy = max((a for _, _, a in history.curve if a is not None), default=None)
    history.seconds_per_step = float(np.median(seconds))
    history.seconds_total = time.perf_counter() - start
    return history


def _next_stop(step, train_spec, eval_spec, record_spec):
    """How many steps there are to the next one after which something is looked at."""
    intervals = (train_spec.steps_per_execution, eval_spec.every_steps, eval_spec.curve_every)
    stops = [(step // interval + 1) * interval for interval in intervals if interval > 0]
    stops += [stop for stop in (*record_spec.steps, train_spec.max_steps) if stop > step]
    return min(stops) - step


def _record(history, record_spec, step):
    if step in record_spec.steps:
        for name, recorder in record_spec.recorders.items():
            rows = [(step, *row) for row in recorder.rows(step)]
            history.recorded[name]["rows"] += rows
