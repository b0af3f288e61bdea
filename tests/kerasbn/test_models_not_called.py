"""Models that are trained but never called themselves, such as a GAN, in all four tools."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasbn

BACKEND = keras.backend.backend()
TOOLS = [kerasbn.fold, kerasbn.from_keras, kerasbn.to_keras]
X = np.random.default_rng(0).normal(2.0, 3.0, (64, 4)).astype("float32")
pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")


def network(name, size, units, kind=layers.BatchNormalization, shape=True):
    first = [keras.Input((size,))] if shape else []
    hidden = [layers.Dense(3), kind(name=f"{name}_bn"), layers.LeakyReLU(0.2)]
    return keras.Sequential([*first, *hidden, layers.Dense(units)], name=name)


class GAN(keras.Model):
    """The GAN of Keras's examples: two networks, two optimizers, trackers and a `train_step`."""

    def __init__(self, discriminator, generator, **kwargs):
        super().__init__(name="gan", **kwargs)
        self.discriminator = discriminator
        self.generator = generator
        self.d_loss_tracker = keras.metrics.Mean(name="d_loss")
        self.g_loss_tracker = keras.metrics.Mean(name="g_loss")
        self.seed_generator = keras.random.SeedGenerator(1337)
        self.built = BACKEND != "tensorflow"  # `fit` asks for it on the other backends

    def compile(self, d_optimizer, g_optimizer, loss_fn):
        super().compile()
        self.d_optimizer, self.g_optimizer, self.loss_fn = d_optimizer, g_optimizer, loss_fn

    @property
    def metrics(self):
        return [self.d_loss_tracker, self.g_loss_tracker]

    def losses_of(self, real):
        size = ops.shape(real)[0]
        noise = keras.random.normal((size, 2), seed=self.seed_generator)
        fake = self.generator(noise, training=True)
        ones, zeros = ops.ones((size, 1)), ops.zeros((size, 1))
        d_loss = self.loss_fn(ones, self.discriminator(real, training=True))
        d_loss += self.loss_fn(zeros, self.discriminator(fake, training=True))
        return d_loss, self.loss_fn(ones, self.discriminator(fake, training=True))

    def train_step(self, *args):
        return {"tensorflow": self.step_tf, "torch": self.step_torch, "jax": self.step_jax}[
            BACKEND
        ](*args)

    def step_tf(self, real):
        import tensorflow as tf

        with tf.GradientTape(persistent=True) as tape:
            d_loss, g_loss = self.losses_of(real)
        for net, optimizer, loss in self.parts(d_loss, g_loss):
            weights = net.trainable_weights
            optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return self.tracked(d_loss, g_loss)

    def step_torch(self, real):
        import torch

        d_loss, g_loss = self.losses_of(real)
        steps = []
        for net, optimizer, loss in self.parts(d_loss, g_loss):
            values = [weight.value for weight in net.trainable_weights]
            steps.append((net, optimizer, torch.autograd.grad(loss, values, retain_graph=True)))
        with torch.no_grad():
            for net, optimizer, gradients in steps:
                optimizer.apply(list(gradients), net.trainable_weights)
        return self.tracked(d_loss, g_loss)

    def step_jax(self, state, real):
        trainable, others, optimizer, metrics = state
        mapping = list(zip(self.trainable_variables, trainable, strict=True))
        mapping += zip(self.non_trainable_variables, others, strict=True)
        with keras.StatelessScope(state_mapping=mapping) as scope:
            d_loss, g_loss = self.losses_of(real)
        others = [scope.get_current_value(variable) for variable in self.non_trainable_variables]
        return {"d_loss": d_loss, "g_loss": g_loss}, (trainable, others, optimizer, metrics)

    def parts(self, d_loss, g_loss):
        yield self.discriminator, self.d_optimizer, d_loss
        yield self.generator, self.g_optimizer, g_loss

    def tracked(self, d_loss, g_loss):
        self.d_loss_tracker.update_state(d_loss)
        self.g_loss_tracker.update_state(g_loss)
        return {"d_loss": self.d_loss_tracker.result(), "g_loss": self.g_loss_tracker.result()}


def trained_gan(kind=layers.BatchNormalization):
    gan = GAN(network("discriminator", 4, 1, kind), network("generator", 2, 4, kind))
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    gan.compile(keras.optimizers.Adam(1e-3), keras.optimizers.Adam(1e-3), loss)
    gan.fit(X, batch_size=32, epochs=1, verbose=0)
    for net in (gan.discriminator, gan.generator):
        norm = net.get_layer(f"{net.name}_bn")
        assert np.any(ops.convert_to_numpy(norm.moving_variance) != 1.0)
    return gan


class TestGAN:
    @pytest.mark.parametrize("trained", [True, False])
    def test_recalibrate_names_the_models_to_recalibrate(self, trained):
        gan = trained_gan() if trained else GAN(network("d", 4, 1), network("g", 2, 4))
        message = (
            "Expected a model that can be called on a batch. Received: model 'gan' of the class "
            "GAN, which has no `call`. Pass the models inside it one by one, each with its own "
            "inputs: model.discriminator, model.generator."
        )
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            kerasbn.recalibrate(gan, X)

    @pytest.mark.parametrize("tool", TOOLS)
    def test_the_others_name_the_models_to_convert(self, tool):
        with pytest.raises(
            ValueError,
            match="'gan' of the class GAN, which has no `call` and cannot be cloned. Pass the "
            r"models inside it one by one: model\.discriminator, model\.generator\.$",
        ):
            tool(trained_gan())

    def test_all_tools_take_the_models_inside(self, assert_close):
        gan = trained_gan()
        kerasbn.recalibrate(gan.discriminator, X, batch_size=64)
        kernel, bias = map(np.float64, gan.discriminator.layers[0].get_weights())
        hidden = np.float64(X) @ kernel + bias
        norm = gan.discriminator.get_layer("discriminator_bn")
        assert_close(norm.moving_mean, hidden.mean(0))
        assert_close(norm.moving_variance, hidden.var(0, ddof=1))
        desired = ops.convert_to_numpy(gan.discriminator(X))
        for model in (
            kerasbn.fold(gan.discriminator),
            ours := kerasbn.from_keras(gan.discriminator),
            kerasbn.to_keras(ours),
        ):
            assert_close(model(X), desired)

    @pytest.mark.parametrize("tool", [*TOOLS, lambda model: kerasbn.recalibrate(model, X)])
    def test_a_model_inside_without_weights_says_so(self, tool):
        gan = GAN(network("d", 4, 1, shape=False), network("g", 2, 4, shape=False))
        with pytest.raises(ValueError, match="model 'd', which has no weights yet"):
            tool(gan.discriminator)


class Trainer(keras.Model):
    """Trains a model with its own loop. Its own `call` exists, but only inference needs it."""

    def __init__(self, net):
        super().__init__(name="trainer")
        self.net = net

    def call(self, x, training=None):
        return self.net(x, training=training)


class TestUncalled:
    def test_weights_inside_are_enough_to_recalibrate(self, assert_close):
        model = Trainer(network("net", 4, 1))
        assert not model.built
        kerasbn.recalibrate(model, X, batch_size=64)
        kernel, bias = map(np.float64, model.net.layers[0].get_weights())
        hidden = np.float64(X) @ kernel + bias
        assert_close(model.net.get_layer("net_bn").moving_mean, hidden.mean(0))
        assert_close(model.net.get_layer("net_bn").moving_variance, hidden.var(0, ddof=1))

    @pytest.mark.parametrize("flag", [True, False])
    def test_a_flag_does_not_stand_for_weights(self, flag):
        model = Trainer(network("net", 4, 1, shape=False))
        model.built = flag
        with pytest.raises(
            ValueError,
            match=r"model 'trainer', which has no weights yet \(layers without weights: 'dense.*', "
            r"'net_bn', 'dense.*'\)\. Call it once on a batch\.",
        ):
            kerasbn.recalibrate(model, X)
        assert not model.weights

    def test_layers_that_are_never_used_do_not_matter(self):
        model = Trainer(network("net", 4, 1))
        model.unused = layers.Dense(3)
        model(X)
        kerasbn.recalibrate(model, X)
        assert not model.unused.built

    @pytest.mark.parametrize("tool", TOOLS)
    def test_a_subclass_is_no_graph_built_or_not(self, tool):
        with pytest.raises(ValueError, match=r"own `call` .* one by one: model\.net\.$"):
            tool(Trainer(network("net", 4, 1, shape=False)))

    @pytest.mark.parametrize("tool", [*TOOLS, lambda model: kerasbn.recalibrate(model, X)])
    def test_a_sequential_model_without_input_after_fit(self, tool):
        model = network("net", 4, 1, kerasbn.BatchNorm, shape=False)
        with pytest.raises(ValueError, match="model 'net', which has no weights yet"):
            tool(model)
        model.compile("sgd", "mse", run_eagerly=BACKEND != "jax")
        model.fit(X, X[:, :1], verbose=0)
        if tool is not kerasbn.from_keras:  # it has nothing to do
            tool(model)

    def test_a_call_that_is_not_implemented(self):
        class Abstract(Trainer):
            def call(self, x):
                raise NotImplementedError("train only")

        with pytest.raises(NotImplementedError) as caught:
            kerasbn.recalibrate(Abstract(network("net", 4, 1)), X)
        note = caught.value.__notes__[-2]
        assert note.startswith("If model 'trainer' is never called itself: Pass the models inside")
        assert note.endswith(": model.net.")

    def test_a_call_that_uses_no_batch_norm(self):
        class Identity(Trainer):
            def call(self, x):
                return x

        model = Identity(network("net", 4, 1))
        model.other = network("other", 4, 1)
        with pytest.warns(
            UserWarning,
            match="2 batch norms got no value from the batches and stay unchanged: 'net_bn', "
            r"'other_bn'\. The `call` of model 'trainer' uses none\. Pass .*model.net, model.other",
        ):
            kerasbn.recalibrate(model, X)


class Holder(layers.Layer):
    """A layer, not a model, that holds a model."""

    def __init__(self, net):
        super().__init__()
        self._hidden, self.parts = net, {"a": [network("deep", 4, 1)]}


def test_models_inside_are_named_by_code_that_finds_them():
    from kerasbn.tools._models import models_inside

    class Outer(keras.Model):
        def __init__(self):
            super().__init__()
            self.towers = [network("one", 4, 1), layers.Dense(2), network("two", 4, 1)]
            self.by_name = {"a": network("three", 4, 1)}
            self._private = network("four", 4, 1)
            self.trainer = Trainer(network("five", 4, 1))
            self.holder = Holder(network("six", 4, 1))

    model = Outer()
    found = models_inside(model, lambda each: isinstance(each, keras.Sequential))
    in_reach = [code for code in found if "..." not in code]
    names = [eval(code, {"model": model}).name for code in in_reach]
    assert sorted(names) == ["five", "four", "one", "six", "three", "two"]
    assert [code for code in found if "..." in code] == ["model.holder...deep"]
