"""What `load_weights` says if a file does not fit, and that the model then keeps its weights."""

from __future__ import annotations

import json
import shutil
import warnings

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import kerasbn

from .weights_models import MIXTURES, OURS, THEIRS, assert_same, make, randomized, values

pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")


def network(*norms):
    """A network that starts and ends with Dense, with these batch norms between them."""
    norms = [norm() if isinstance(norm, type) else norm for norm in norms]
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(4), *norms, layers.Dense(2, name="last")]
    )


@pytest.fixture
def saved(tmp_path):
    """Writes the weights of a model, and returns the file."""

    def save(model, name="model.weights.h5"):
        randomized(model, seed=5).save_weights(tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def refused():
    """Asserts that loading raises an error, and that it changes no weight."""

    def check(model, path, match, error=ValueError):
        before = values(randomized(model, seed=3))
        with pytest.raises(error, match=match) as info:
            kerasbn.load_weights(model, path)
        assert_same(model, before)
        return str(info.value)

    return check


class TestModelsThatDiffer:
    def test_fewer_batch_norms_in_the_file(self, saved, refused):
        message = refused(
            network(OURS, OURS, OURS),
            saved(network(THEIRS, THEIRS)),
            "In 'layers', the model has 3 batch norms, but the file has 2",
        )
        assert "which keeps its weights" in message

    def test_more_batch_norms_in_the_file(self, saved, refused):
        path = saved(network(THEIRS, THEIRS))
        refused(network(OURS), path, "the model has 1 batch norm, but the file has 2")

    def test_a_missing_layer(self, saved, refused):
        source = keras.Sequential([keras.Input((4,)), layers.Dense(4), THEIRS()])
        match = r"'layers/dense_1' \(layer 'last'\) is not in the file"
        refused(network(OURS), saved(source), match)

    @pytest.mark.filterwarnings("ignore:Skipping nested container")
    def test_missing_lists_inside_a_list(self, saved, refused):
        path = saved(make("subclassed", "theirs"))
        with h5py.File(path, "a") as file:
            del file["inner/container_1"]
        model = make("subclassed", "ours")
        refused(model, path, "In 'inner/container_1', the model has 2 batch norms, but .* has 0")

    def test_another_shape(self, saved, refused):
        source = keras.Sequential([keras.Input((4,)), layers.Dense(5), THEIRS(), layers.Dense(2)])
        message = refused(network(OURS), saved(source), r"\[\(4,\), \(4,\), \(4,\), \(4,\)\]")
        for part in ("layers/dense'", "layers/batch_norm'", "layers/dense_1'", "(5,), (5,)"):
            assert part in message

    def test_several_axes(self, saved, refused):
        source = keras.Sequential([keras.Input((3, 4)), THEIRS()])
        target = keras.Sequential([keras.Input((3, 4)), OURS(axis=(1, 2))])
        refused(target, saved(source), r"expects weights of the shapes \[\(3, 4\), .*has \[\(4,\)")

    def test_another_layer_in_place_of_a_batch_norm(self, saved, refused):
        path = saved(network(layers.LayerNormalization))
        refused(network(OURS), path, "the model has 1 batch norm, but the file has 0")

    def test_a_mixture_of_another_kind(self, saved, refused):
        path = saved(network(OURS, THEIRS, THEIRS))
        message = refused(network(OURS, OURS, OURS), path, "mixes both classes")
        assert "kerasbn.from_keras" in message

    def test_more_layers_in_the_file_lead_to_a_warning(self, saved):
        source, target = network(THEIRS), network(OURS)
        source.add(layers.Dense(3, name="extra"))
        path = saved(source)
        with pytest.warns(UserWarning, match="has no layer for 1 group of .*'layers/dense_2'"):
            kerasbn.load_weights(target, path)
        assert_same(target, values(source)[:-2])

    def test_one_layer_of_many(self, saved, refused):
        norms = [OURS(), OURS(), OURS(scale=False), OURS()]
        match = r"'layers/batch_norm_2' .* expects 3 weights \(beta, moving_mean, moving_variance\)"
        refused(network(*norms), saved(network(*[THEIRS] * 4)), match)


# With the number of all weights and the names of those that the option adds.
OPTIONS = {
    "debias": ({"debias": True}, 5, "update_count"),
    "cumulative": ({"momentum": None}, 5, "update_count"),
    "renorm": ({"renorm": True}, 7, "moving_stddev, renorm_mean, renorm_stddev"),
}


class TestOptionsWithMoreWeights:
    @pytest.mark.parametrize("name", OPTIONS)
    @pytest.mark.parametrize("kind", [OURS, THEIRS])
    def test_the_file_lacks_them(self, saved, refused, name, kind):
        options, count, extra = OPTIONS[name]
        match = rf"expects {count} weights \(gamma, .*{extra}\). The file has 4"
        refused(network(OURS(**options)), saved(network(kind)), match)

    @pytest.mark.parametrize("name", OPTIONS)
    @pytest.mark.parametrize("kind", [OURS, THEIRS])
    def test_the_file_has_more(self, saved, refused, name, kind):
        options, count, _ = OPTIONS[name]
        match = rf"expects 4 weights \(gamma, beta, .*\). The file has {count}"
        refused(network(kind), saved(network(OURS(**options))), match)

    @pytest.mark.parametrize("name", OPTIONS)
    def test_both_have_them(self, saved, name):
        options, *_ = OPTIONS[name]
        source, target = network(OURS(**options)), network(OURS(**options))
        path = saved(source)
        kerasbn.load_weights(target, path)
        assert_same(target, source)


class TestFiles:
    @pytest.mark.parametrize("ending", ["h5", "json"])
    def test_missing(self, tmp_path, refused, ending):
        path = tmp_path / f"gone.weights.{ending}"
        refused(network(OURS), path, "There is no weights file", FileNotFoundError)

    def test_a_missing_shard(self, tmp_path, refused):
        source = network(THEIRS, THEIRS)
        source.save_weights(tmp_path / "model.weights.json", max_shard_size=100 / 1024**3)
        (tmp_path / "model_00001.weights.h5").unlink()
        match = "refers to the file '.*model_00001.weights.h5', which does not exist"
        path = tmp_path / "model.weights.json"
        refused(network(OURS, OURS), path, match, FileNotFoundError)

    def test_keras(self, tmp_path, refused):
        network(THEIRS).save(tmp_path / "model.keras")
        refused(network(OURS), tmp_path / "model.keras", "holds a whole model.*kerasbn.from_keras")

    def test_legacy(self, tmp_path, refused):
        source = randomized(network(THEIRS), seed=5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            source.save(tmp_path / "model.h5")
        target = network(OURS)
        advice = "legacy format.*load it with model.load_weights"
        refused(target, tmp_path / "model.h5", advice)
        shutil.copy(tmp_path / "model.h5", tmp_path / "model.weights.h5")
        refused(target, tmp_path / "model.weights.h5", "Rename it first")
        target.load_weights(tmp_path / "model.h5")  # as the message says
        assert_same(target, source)

    @pytest.mark.parametrize("name", ["model", "model.ckpt", "model.npz"])
    def test_another_ending(self, tmp_path, refused, name):
        refused(network(OURS), tmp_path / name, "ends in .weights.h5 or .weights.json")

    def test_a_folder(self, tmp_path, refused):
        refused(network(OURS), tmp_path, "It is a folder")

    @pytest.mark.parametrize("content", [b"", b"not HDF5", "cut"])
    def test_damaged(self, saved, refused, content):
        path = saved(network(THEIRS))
        path.write_bytes(path.read_bytes()[:3000] if content == "cut" else content)
        refused(network(OURS), path, "cannot be read. It may be incomplete")

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 1}', '{"weight_map": {}}'])
    def test_damaged_index_of_shards(self, tmp_path, refused, content):
        (tmp_path / "model.weights.json").write_text(content)
        match = "Expected a file that model.save_weights wrote"
        refused(network(OURS), tmp_path / "model.weights.json", match)

    def test_an_index_that_leaves_its_folder(self, tmp_path, refused):
        content = {"weight_map": {"/layers/dense/vars": "../other.weights.h5"}}
        (tmp_path / "model.weights.json").write_text(json.dumps(content))
        refused(network(OURS), tmp_path / "model.weights.json", "cannot be read")

    def test_no_weights(self, tmp_path, refused):
        with h5py.File(tmp_path / "data.weights.h5", "w") as file:
            file["x"] = np.ones(3)
        refused(network(OURS), tmp_path / "data.weights.h5", "no weights in Keras's format")

    def test_links_into_other_files(self, saved, refused):
        secret, path = saved(network(THEIRS), "secret.weights.h5"), saved(network(THEIRS))
        with h5py.File(path, "a") as file:
            group = file["layers/batch_normalization/vars"]
            del group["0"]
            group["0"] = h5py.ExternalLink(secret, "layers/batch_normalization/vars/0")
        refused(network(OURS), path, "The file has 3")

    def test_data_in_other_files(self, tmp_path, saved, refused):
        (tmp_path / "raw").write_bytes(bytes(16))
        path = saved(network(THEIRS))
        with h5py.File(path, "a") as file:
            group = file["layers/batch_normalization/vars"]
            del group["0"]
            external = [(str(tmp_path / "raw"), 0, 16)]
            group.create_dataset("0", shape=(4,), dtype="float32", external=external)
        refused(network(OURS), path, "is in another file")


class TestArguments:
    def test_the_path_is_no_path(self, refused):
        refused(network(OURS), 3, r"Expected the path of a weights file. Received: 3")

    def test_the_other_order(self, saved):
        with pytest.raises(ValueError, match=r"Expected a built keras\.Model\. Received: '"):
            kerasbn.load_weights(str(saved(network(OURS))), network(OURS))

    def test_a_model_without_weights(self, saved):
        with pytest.raises(ValueError, match="Expected a built model"):
            kerasbn.load_weights(keras.Sequential([OURS()]), saved(network(OURS)))

    def test_a_model_that_is_never_called_itself(self, saved):
        class Pair(keras.Model):
            def __init__(self):
                super().__init__()
                self.one, self.two = network(OURS), network(OURS)

        with pytest.raises(ValueError, match="pass the models inside it one by one"):
            kerasbn.load_weights(Pair(), saved(network(OURS)))


class Stubborn(layers.Layer):
    """A layer that refuses large weights after it has taken them."""

    def build(self, shape):
        self.w = self.add_weight(shape=(2,), name="w")

    def call(self, x):
        return x

    def load_own_variables(self, store):
        super().load_own_variables(store)
        if float(store["0"][0]) > 100:
            raise RuntimeError("too large")


@pytest.mark.parametrize("mixture", MIXTURES)
def test_an_error_in_the_middle_of_loading_restores_the_model(saved, refused, mixture):
    def stubborn(kinds):
        norms = [kinds[i % len(kinds)]() for i in range(4)]
        return keras.Sequential([keras.Input((4,)), *norms[:2], Stubborn(), *norms[2:]])

    source = stubborn(MIXTURES["theirs"])
    randomized(source)
    path = saved(source)
    with h5py.File(path, "a") as file:
        file["layers/stubborn/vars/0"][...] = 1000.0
    refused(stubborn(MIXTURES[mixture]), path, "Keras says: (.|\n)*too large")


@pytest.mark.parametrize("name", ["typo.h5", "typo.keras", "typo.weights.h5"])
def test_a_missing_file_is_missing_whatever_its_name(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="Check the path"):
        kerasbn.load_weights(network(), tmp_path / name)


def test_the_optimizer_of_mixed_precision_needs_no_layer(tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model, other = network(OURS), network(OURS)
    finally:
        keras.config.set_dtype_policy(before)
    model.compile("adam", "mse")
    model.fit(np.ones((4, 4)), np.ones((4, 2)), verbose=0)
    model.save_weights(tmp_path / "model.weights.h5")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        kerasbn.load_weights(other, tmp_path / "model.weights.h5")
    assert_same(other, model)
