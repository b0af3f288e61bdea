"""A tool's new model shares no array with the model that it was made from."""

import keras
import numpy as np
import pytest

import kerasbn

X = np.random.default_rng(0).normal(3, 2, (32, 4)).astype("float32")


@pytest.mark.parametrize("tool", [kerasbn.fold, kerasbn.from_keras, kerasbn.to_keras])
def test_both_models_predict_after_training(tool):
    own = tool is kerasbn.to_keras
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3),
            kerasbn.BatchNorm() if own else keras.layers.BatchNormalization(),
            keras.layers.Dense(2),
        ]
    )
    model.compile("sgd", "mse")
    model.fit(X, X[:, :2], verbose=0)
    made = tool(model)
    # On JAX, `predict` donates the arrays of the model, which deletes them.
    np.testing.assert_allclose(
        made.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-5, rtol=0
    )
    made.compile("sgd", "mse")
    made.fit(X, X[:, :2], verbose=0)
    model.fit(X, X[:, :2], verbose=0)
