"""Uses the installed package on JAX: the layer, `recalibrate`, `fold`, and no TensorFlow."""

import importlib.util
import sys
from importlib import metadata
from pathlib import Path

import keras
import numpy as np

import kerasbn

assert "site-packages" in kerasbn.__file__, f"not the installed package: {kerasbn.__file__}"
assert metadata.version("kerasbn") == kerasbn.__version__
assert Path(kerasbn.__file__).with_name("py.typed").exists()
for absent in ("tensorflow", "torch", "pandas", "distributed", "matplotlib"):
    assert importlib.util.find_spec(absent) is None, f"{absent} is installed"
assert keras.backend.backend() == "jax"

rng = np.random.default_rng(0)
x, y = rng.normal(3, 2, (256, 8, 8, 3)).astype("float32"), rng.integers(0, 4, 256)
model = keras.Sequential(
    [
        keras.Input((8, 8, 3)),
        keras.layers.Conv2D(4, 3, use_bias=False),
        kerasbn.BatchNorm(),
        keras.layers.ReLU(),
        keras.layers.Flatten(),
        keras.layers.Dense(4),
    ]
)
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(x, y, batch_size=64, verbose=0)
kerasbn.recalibrate(model, x, batch_size=64)
folded = kerasbn.fold(model, verbose=True)
apart = np.abs(folded.predict(x, verbose=0) - model.predict(x, verbose=0)).max()
assert apart < 1e-5, apart

print(f"kerasbn {kerasbn.__version__} works on JAX {metadata.version('jax')} alone:")
print(f"layer, recalibrate and fold; folded outputs {apart:.1e} apart; {sys.version.split()[0]}")
