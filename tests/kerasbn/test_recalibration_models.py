"""`recalibrate` finds the statistics of batch norms in loops, wrappers and code of the user."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasbn

from .recalibrated_models import X as FEATURES
from .recalibrated_models import one_norm, population, value

X = FEATURES[:60].reshape(20, 3, 4)
FLAT = X[:, 0]
pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")


def cut(x):
    return [np.float64(x[:12]), np.float64(x[12:])]


def normalized(x):
    return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3)


def norm_in(model):
    (norm,) = kerasbn.tools.recalibration.batch_norms(model)
    return norm


@keras.saving.register_keras_serializable("kerasbn_tests")
class Cell(layers.Layer):
    """Adds the state to the input and normalizes the sum, which is the new state."""

    state_size = output_size = 4

    def __init__(self, kind="BatchNorm", **options):
        super().__init__(**options)
        self.kind = kind
        self.norm = kerasbn.BatchNorm() if kind == "BatchNorm" else layers.BatchNormalization()

    def build(self, shape):
        self.norm.build((None, 4))

    def call(self, x, states, training=None):
        y = self.norm(x + states[0], training=training)
        return y, [y]

    def get_config(self):
        return {**super().get_config(), "kind": self.kind}


def sums_in_cells(x, cells=1):
    """What the norm of each `Cell` sees: one batch for each time step of each batch."""
    seen = [[] for _ in range(cells)]
    for batch in cut(x):
        states = [0.0] * cells
        for t in range(x.shape[1]):
            y = batch[:, t]
            for of_cell, state in enumerate(states):
                seen[of_cell].append(y + state)
                states[of_cell] = y = normalized(y + state)
    return [population(each) for each in seen]


def sums_in_the_cell(x):
    return sums_in_cells(x)[0]


class TestRNN:
    @pytest.mark.parametrize("kind", ["BatchNorm", "BatchNormalization"])
    @pytest.mark.parametrize("steps", [3, None])
    def test_a_batch_norm_in_the_cell(self, kind, steps, assert_statistics):
        rnn = layers.RNN(Cell(kind))
        model = keras.Sequential([keras.Input((steps, 4)), rnn])
        kerasbn.recalibrate(model, X, batch_size=12)
        assert_statistics(rnn.cell.norm, sums_in_the_cell(X))
        assert rnn.unroll is False

    @pytest.mark.parametrize("kinds", [["BatchNorm"], ["BatchNorm", "BatchNormalization"]])
    def test_a_list_of_cells(self, kinds, assert_statistics):
        """Keras calls each of these cells an additional time, which must not count."""
        rnn = layers.RNN([Cell(kind) for kind in kinds])
        model = keras.Sequential([keras.Input((3, 4)), rnn])
        before = value(model(X))
        kerasbn.recalibrate(model, X, batch_size=12)
        for cell, expected in zip(rnn.cell.cells, sums_in_cells(X, len(kinds)), strict=True):
            assert_statistics(cell.norm, expected)
            cell.norm.moving_mean.assign(np.zeros(4))
            cell.norm.moving_variance.assign(np.ones(4))
        np.testing.assert_array_equal(value(model(X)), before)

    def test_a_mask_that_hides_nothing(self, assert_statistics):
        rnn = layers.RNN(Cell())
        model = keras.Sequential([keras.Input((3, 4)), layers.Masking(), rnn])
        kerasbn.recalibrate(model, X, batch_size=12)
        assert_statistics(rnn.cell.norm, sums_in_the_cell(X))

    def test_both_directions(self, assert_statistics):
        both = layers.Bidirectional(layers.RNN(Cell()))
        model = keras.Sequential([keras.Input((3, 4)), both])
        kerasbn.recalibrate(model, X, batch_size=12)
        assert_statistics(both.forward_layer.cell.norm, sums_in_the_cell(X))
        assert_statistics(both.backward_layer.cell.norm, sums_in_the_cell(X[:, ::-1]))

    def test_batches_of_different_lengths(self, assert_statistics):
        rnn = layers.RNN(Cell())
        model = keras.Sequential([keras.Input((None, 4)), rnn])
        lengths = (3, 2, 1, 3, 2)
        kerasbn.recalibrate(model, [X[:, :n] for n in lengths])
        seen = []
        for n in lengths:
            y = 0.0
            for t in range(n):
                seen.append(np.float64(X[:, t]) + y)
                y = normalized(seen[-1])
        assert_statistics(rnn.cell.norm, population(seen))

    def test_an_error_restores_the_loop(self):
        rnn = layers.RNN(Cell())
        model = keras.Sequential([keras.Input((3, 4)), rnn])
        with pytest.raises(ValueError, match="Batch 1 is empty"):
            kerasbn.recalibrate(model, [X, X[:0]])
        assert rnn.unroll is False


class Subclass(keras.Model):
    def __init__(self, name=None):
        super().__init__(name=name)
        self.norm = kerasbn.BatchNorm(name="bn")


class Loop(Subclass):
    def call(self, x, training=None):
        def body(i, x):
            return i + 1, self.norm(2.0 * x, training=training)

        return ops.while_loop(lambda i, x: i < 2, body, (0, x))[1]

    def seen(self):
        return [each for x in cut(FLAT) for each in (2 * x, 2 * normalized(2 * x))]


class Map(Subclass):
    def call(self, x, training=None):
        parts = ops.stack([x, 3.0 * x])
        return ops.map(lambda part: self.norm(part, training=training), parts)

    def seen(self):
        return [factor * x for x in cut(FLAT) for factor in (1, 3)]


class Condition(Subclass):
    def call(self, x, training=None):
        return ops.cond(ops.shape(x)[0] > 0, lambda: self.norm(x, training=training), lambda: x)

    def seen(self):
        return cut(FLAT)


class Remat(Subclass):
    def __init__(self):
        with keras.RematScope(mode="full"):
            super().__init__()

    def call(self, x, training=None):
        return self.norm(x, training=training)

    def seen(self):
        return cut(FLAT)


class OwnTrainStep(Subclass):
    """A `call` without `training`, and a `train_step` that never uses it."""

    def train_step(self, *data):
        raise NotImplementedError

    def call(self, x):
        return self.norm(x)

    def seen(self):
        return cut(FLAT)


class TestSubclasses:
    @pytest.mark.parametrize("kind", [Loop, Map, Condition, Remat, OwnTrainStep])
    def test_statistics(self, kind, assert_statistics):
        model = kind()
        model(FLAT)
        kerasbn.recalibrate(model, FLAT, batch_size=12)
        assert_statistics(model.norm, population(model.seen()))
        assert "call" not in vars(model.norm)

    @pytest.mark.parametrize("eagerly", [False, True])
    def test_a_function_that_is_vectorized_is_an_error(self, eagerly):
        """Without the error, TensorFlow gives the statistics of the first element alone."""

        class Vectorized(Subclass):
            def call(self, x, training=None):
                norm = lambda part: self.norm(part, training=training)  # noqa: E731
                return ops.vectorized_map(norm, ops.stack([x, 3.0 * x]))

        model = Vectorized(name="vectorized")
        model(FLAT)
        model.run_eagerly = eagerly
        with pytest.raises(ValueError, match="model 'vectorized', which calls a batch norm inside"):
            kerasbn.recalibrate(model, FLAT)
        assert value(model.norm.moving_mean).tolist() == [0, 0, 0, 0]

    def test_vectorized_functions_elsewhere_do_not_matter(self, assert_statistics):
        class Around(Subclass):
            def call(self, x, training=None):
                double = lambda row: 2.0 * row  # noqa: E731
                y = self.norm(ops.vectorized_map(double, x), training=training)
                return ops.vectorized_map(double, y)

        model = Around()
        model(FLAT)
        kerasbn.recalibrate(model, FLAT, batch_size=12)
        assert_statistics(model.norm, population([2 * batch for batch in cut(FLAT)]))

    def test_an_eager_run_has_the_statistics_of_a_compiled_one(self, assert_statistics):
        model = one_norm()
        model.run_eagerly = True
        kerasbn.recalibrate(model, FLAT, batch_size=12)
        assert_statistics(model.layers[0], population(cut(FLAT)))


class TestLayers:
    def test_time_distributed_has_a_batch_for_each_step(self, assert_statistics):
        model = keras.Sequential([keras.Input((3, 4)), layers.TimeDistributed(kerasbn.BatchNorm())])
        kerasbn.recalibrate(model, X, batch_size=12)
        seen = [batch[:, t] for batch in cut(X) for t in range(3)]
        assert_statistics(norm_in(model), population(seen))

    def test_remat_blocks(self, assert_statistics):
        with keras.RematScope(mode="full"):
            block = one_norm()
        model = keras.Sequential([keras.Input((4,)), block])
        mode = block._remat_mode
        assert mode is not None
        kerasbn.recalibrate(model, FLAT, batch_size=12)
        assert_statistics(norm_in(model), population(cut(FLAT)))
        assert block._remat_mode == mode

    def test_wrappers_of_the_user(self, assert_statistics):
        class Doubled(layers.Wrapper):
            def call(self, x, training=None):
                return self.layer(2.0 * x, training=training)

        model = keras.Sequential([keras.Input((4,)), Doubled(kerasbn.BatchNorm())])
        kerasbn.recalibrate(model, FLAT, batch_size=12)
        assert_statistics(norm_in(model), population([2 * batch for batch in cut(FLAT)]))

    def test_a_shared_model(self, assert_statistics):
        x, shared = keras.Input((4,)), one_norm()
        model = keras.Model(x, [shared(x), shared(3.0 * x)])
        kerasbn.recalibrate(model, FLAT, batch_size=12)
        seen = [factor * batch for batch in cut(FLAT) for factor in (1, 3)]
        assert_statistics(norm_in(shared), population(seen))


class TestFrozenByCode:
    class Frozen(keras.Model):
        """A base in inference mode, as in `self.base(x, training=False)`."""

        def __init__(self, training):
            super().__init__(name="outer")
            self.base = one_norm()
            self.base.name = "base"
            self.mode = training

        def call(self, x, training=None):
            return self.base(x, training=training if self.mode is None else self.mode)

    def test_a_warning_names_it(self, assert_statistics):
        model = self.Frozen(False)
        model(FLAT)
        with pytest.warns(UserWarning, match=r"1 frozen batch norm of model 'outer' \(a call with"):
            kerasbn.recalibrate(model, FLAT, batch_size=12)
        assert_statistics(norm_in(model), population(cut(FLAT)))

    @pytest.mark.filterwarnings("error::UserWarning")
    @pytest.mark.parametrize("training", [None, True])
    def test_no_warning_if_it_trains(self, training):
        model = self.Frozen(training)
        model(FLAT)
        kerasbn.recalibrate(model, FLAT, batch_size=12)
