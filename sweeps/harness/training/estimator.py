"""Trains and evaluates networks on Keras 3. Its classes are modelled on `tf.estimator`.

    estimator = Estimator(model_fn, trial)
    estimator.initialize(trial)
    history = train_and_evaluate(
        estimator,
        TrainSpec(input_fn=batches, max_steps=1000),
        EvalSpec(
            input_fn=test_set, every_steps=1, target_accuracy=0.9, stop_at_target=True
        ),
    )

A target check stops classifying as soon as the target is out of reach; see
`sweeps.harness.training.test_set`. The whole evaluation set is classified when the target is met,
and for each point of the accuracy curve.
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
    """The training batches and the budget.

    Attributes:
        input_fn: Function that returns an endless iterator of mini-batches (images, labels). They
            are NumPy arrays, and all mini-batches have the same size.
        max_steps: Budget in training steps.
        steps_per_execution: Largest number of steps per call of the compiled function. Default: 1.
    """

    input_fn: Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]
    max_steps: int
    steps_per_execution: int = 1


class EvalSpec(NamedTuple):
    """The evaluation set, the target, and the steps after which to evaluate.

    Attributes:
        input_fn: Function that returns the `TestSet` to evaluate on.
        every_steps: Number of training steps between two checks of the target.
        target_accuracy: Share of the examples to classify correctly. `None` means that the network
            is not evaluated, as in a regression.
        stop_at_target: Whether training ends when the target is met.
        curve_every: Number of training steps between two full evaluations. With 0, the default,
            the only full evaluation is after the last step.
        exact_until: Number of steps at the start after each of which the target is checked,
            whatever `every_steps` is. Default: 0.
    """

    input_fn: Callable[[], TestSet]
    every_steps: int
    target_accuracy: float | None
    stop_at_target: bool
    curve_every: int = 0
    exact_until: int = 0

    def checks_target(self, step: int) -> bool:
        """Whether the target is checked after this step."""
        return step <= self.exact_until or step % self.every_steps == 0


class Recorder(Protocol):
    """Takes measurements during a run; see `sweeps.harness.training.recorders`."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the values in a row."""

    def start(self) -> None:
        """Called at the start of a run."""

    def after_execution(self) -> None:
        """Called after each call of the compiled function. A call takes one or more steps."""

    def rows(self, step: int) -> list[tuple]:
        """Measures the network, without changing it or the optimizer.

        Args:
            step: Number of training steps so far. 0 is the start.

        Returns:
            Rows of values, with the `columns`.
        """


class RecordSpec(NamedTuple):
    """The recorders of a run, and the steps after which they measure.

    Attributes:
        recorders: Recorders by name. Default: none.
        steps: Training steps after which the recorders measure. 0 is the start.
    """

    recorders: Mapping[str, Recorder] = MappingProxyType({})
    steps: tuple[int, ...] = ()


@dataclasses.dataclass
class History:
    """The results of a training run.

    Times are in seconds. Losses and accuracies are means over examples, accuracies from 0 to 1.

    Attributes:
        status: "done", or "diverged" if the loss became NaN or infinite. A diverged run ends there.
        reached: Whether the target was met.
        steps_to_target: Step of the first check that met the target. `None` if no check met it.
        seconds_to_target: Time of the training steps up to that check, without evaluation and
            compilation. `None` if no check met the target.
        final_step: Number of steps taken.
        final_accuracy: Accuracy on the whole test set after the last step. `None` if the run
            diverged, and for a regression.
        best_accuracy: The best accuracy of all full evaluations. `None` if there were none.
        final_loss: Training loss of the last mini-batch.
        seconds_per_step: Median time of a step.
        seconds_total: Time of the whole run, including evaluation.
        curve: Points (step, training loss, test accuracy), one per call of the compiled function.
            The loss is the mean over the steps of the call. The accuracy is `None` if the whole
            test set was not classified.
        recorded: The columns and rows of each recorder, by name. Each row starts with the step.
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
    """A network with its compiled training step.

    It serves any number of runs that differ in their seed and in their learning rate.

    Args:
        model_fn: Function of (params) that returns the `EstimatorSpec`.
        params: Argument of `model_fn`. Its attributes `batch_size`, `jit_compile` and
            `steps_per_execution` configure the training step.

    Attributes:
        model: The network.
        loss: The loss, a function of (labels, outputs).
    """

    def __init__(self, model_fn: Callable[[Any], EstimatorSpec], params: Any):
        self._params = params
        spec = model_fn(params)
        self.model, self._optimizer, self.loss = spec.model, spec.optimizer, spec.loss
        self._prepare = spec.prepare
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
        # Tracing and the first call take seconds. They must not count in the first run.
        shapes = [(params.batch_size, *each.shape[1:]) for each in self._batch]
        dtypes = [each.dtype.as_numpy_dtype for each in self._batch]
        x, y = map(np.zeros, shapes, dtypes)
        self.train_steps([(x, y)])

    def initialize(self, params: Any) -> None:
        """Resets the optimizer, draws the initial weights of a run and sets its learning rate.

        Args:
            params: Parameters of the run. They must describe the same network.
        """
        for variable, start in zip(self._variables, self._start, strict=True):
            variable.assign(start)
        self._prepare(params)

    def train_steps(self, batches: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
        """Takes one training step per mini-batch.

        Returns:
            Each batch's loss, computed before the update.
        """
        if self._steps is None:
            return [float(self._step(*batch).numpy()) for batch in batches]
        images, labels = zip(*batches, strict=True)
        return self._steps(np.stack(images), np.stack(labels)).numpy().tolist()

    def classify(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Classifies images in inference mode, in which batch norm uses its moving averages.

        Returns:
            Whether each image is classified correctly, and the probability of the true class.
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
    """Trains and evaluates a network.

    Training ends after the last step of the budget, or earlier if the loss is not finite. It also
    ends when the target is met, if `eval_spec.stop_at_target` is true.

    Args:
        estimator: The network, initialized for this run.
        train_spec: Training batches and budget.
        eval_spec: Evaluation set and target.
        record_spec: Recorders and their steps. Default: no recorders.

    Returns:
        The results of the run.
    """
    start = time.perf_counter()
    history, seconds = History(), []
    test_set, batches = eval_spec.input_fn(), train_spec.input_fn()
    _start_recording(history, record_spec)
    while history.final_step < train_spec.max_steps:
        count = _steps_to_next_stop(history.final_step, train_spec, eval_spec, record_spec)
        losses = _take_steps(estimator, [next(batches) for _ in range(count)], seconds)
        if not np.isfinite(losses).all():
            _note_divergence(history, losses)
            break
        _note_steps(history, losses, record_spec)
        accuracy = _evaluate(estimator, test_set, history, train_spec, eval_spec)
        _note_accuracy(history, losses, accuracy)
        _record(history, record_spec)
        if _reaches_target(accuracy, history, eval_spec):
            _note_target(history, seconds)
            if eval_spec.stop_at_target:
                break
    history.best_accuracy = max((a for _, _, a in history.curve if a is not None), default=None)
    history.seconds_per_step = float(np.median(seconds))
    history.seconds_total = time.perf_counter() - start
    return history


def _steps_to_next_stop(step, train_spec, eval_spec, record_spec):
    """Returns the number of steps to run in the next call of the compiled function."""
    intervals = (train_spec.steps_per_execution, eval_spec.every_steps, eval_spec.curve_every)
    stops = [(step // interval + 1) * interval for interval in intervals if interval > 0]
    stops += [stop for stop in (*record_spec.steps, train_spec.max_steps) if stop > step]
    return 1 if step < eval_spec.exact_until else min(stops) - step


def _take_steps(estimator, batches, seconds):
    """Takes one step per mini-batch, and appends the time of each step to `seconds`.

    Returns each batch's loss, computed before the update.
    """
    start = time.perf_counter()
    losses = estimator.train_steps(batches)
    seconds += [(time.perf_counter() - start) / len(batches)] * len(batches)
    return losses


def _checks_target(history, eval_spec):
    """Whether the target is checked after the current step."""
    if eval_spec.target_accuracy is None or history.reached:
        return False
    return eval_spec.checks_target(history.final_step)


def _reaches_target(accuracy, history, eval_spec):
    """Whether the target is met for the first time now."""
    checked = accuracy is not None and _checks_target(history, eval_spec)
    return checked and accuracy >= eval_spec.target_accuracy


def _evaluate(estimator, test_set, history, train_spec, eval_spec):
    """Returns the accuracy on the evaluation set after the current step.

    It is `None` if no evaluation is due after this step, or if a target check misses the target.
    """
    if eval_spec.target_accuracy is None:
        return None
    step = history.final_step
    on_curve = eval_spec.curve_every > 0 and step % eval_spec.curve_every == 0
    if on_curve or step == train_spec.max_steps:
        return test_set.accuracy(estimator.classify)
    if _checks_target(history, eval_spec):
        return test_set.accuracy(estimator.classify, at_least=eval_spec.target_accuracy)
    return None


def _note_steps(history, losses, record_spec):
    history.final_step += len(losses)
    history.final_loss = losses[-1]
    for recorder in record_spec.recorders.values():
        recorder.after_execution()


def _note_accuracy(history, losses, accuracy):
    history.curve.append((history.final_step, sum(losses) / len(losses), accuracy))
    history.final_accuracy = accuracy


def _note_target(history, seconds):
    history.reached = True
    history.steps_to_target, history.seconds_to_target = history.final_step, sum(seconds)


def _note_divergence(history, losses):
    """Ends the curve at the first loss that is not finite."""
    taken = int(np.argmin(np.isfinite(losses))) + 1
    history.final_step += taken
    history.final_loss = losses[taken - 1]
    history.status, history.final_accuracy = "diverged", None
    history.curve.append((history.final_step, history.final_loss, None))


def _start_recording(history, record_spec):
    for name, recorder in record_spec.recorders.items():
        recorder.start()
        history.recorded[name] = {"columns": list(recorder.columns), "rows": []}
    _record(history, record_spec)


def _record(history, record_spec):
    """Lets all recorders measure, if they are to measure after the current step."""
    step = history.final_step
    if step in record_spec.steps:
        for name, recorder in record_spec.recorders.items():
            rows = [(step, *row) for row in recorder.rows(step)]
            history.recorded[name]["rows"] += rows
