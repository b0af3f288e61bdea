"""Files of models with Keras's layer: they load as Keras's, and `from_keras` converts them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import kerasbn
from kerasbn.tools import batch_norms

OPTIONS = {
    "axis": 1,
    "momentum": 0.7,
    "epsilon": 0.02,
    "center": True,
    "scale": False,
    "beta_initializer": "ones",
    "moving_mean_initializer": keras.initializers.Constant(0.5),
    "moving_variance_initializer": keras.initializers.Constant(2.0),
    "beta_regularizer": keras.regularizers.L2(0.5),
    "beta_constraint": keras.constraints.MaxNorm(3.0),
    "renorm": True,
    "renorm_clipping": {"rmax": 3.0, "rmin": 0.2, "dmax": 5.0},
    "renorm_momentum": 0.5,
    "name": "norm",
}


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
@pytest.mark.filterwarnings("ignore")
def test_a_file_of_keras_converts_with_all_attributes(features, tmp_path, assert_close, name):
    inner = keras.Sequential([keras.Input((3, 4)), layers.BatchNormalization(epsilon=0.1)])
    inner.layers[0].trainable = False
    model = keras.Sequential([keras.Input((3, 4)), layers.BatchNormalization(**OPTIONS), inner])
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.uniform(0.5, 2.0, weight.shape))
    model.save(tmp_path / name)
    loaded = keras.models.load_model(tmp_path / name)
    assert {type(norm) for norm in batch_norms(loaded)} == {layers.BatchNormalization}
    converted = kerasbn.from_keras(loaded)
    for norm, original in zip(batch_norms(converted), batch_norms(model), strict=True):
        assert type(norm) is kerasbn.BatchNorm
        config = original.get_config()
        assert {key: norm.get_config()[key] for key in config} == config
        for weight, expected in zip(norm.weights, original.weights, strict=True):
            assert weight.name == expected.name
            assert_close(weight, expected, 0)
    x = features((5, 3, 4), means=(-1, 1))
    assert_close(converted(x), keras.ops.convert_to_numpy(model(x)))
    # And on through files of this package's layer.
    converted.save(tmp_path / f"again.{name.partition('.')[2]}")
    again = keras.models.load_model(tmp_path / f"again.{name.partition('.')[2]}")
    assert {type(norm) for norm in batch_norms(again)} == {kerasbn.BatchNorm}
    assert_close(again(x), keras.ops.convert_to_numpy(converted(x)), 0)
