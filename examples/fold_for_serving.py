"""Trains a small convolutional network, then recalibrates, folds, checks and saves it for serving.

    python examples/fold_for_serving.py            # MNIST, which Keras downloads
    python examples/fold_for_serving.py --small    # random images, in seconds

It writes model.keras, and with the TensorFlow backend also a SavedModel in the folder model.
"""

import argparse
import time

import keras
import numpy as np

import kerasbn

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--small", action="store_true", help="Use a few random images.")
arguments = parser.parse_args()

keras.utils.set_random_seed(0)
if arguments.small:
    x, y = np.random.randint(0, 256, (512, 28, 28)), np.random.randint(0, 10, 512)
else:
    (x, y), _ = keras.datasets.mnist.load_data()
x = x[..., None].astype("float32") / 255


def block(filters, strides):
    """A convolution, a batch norm and an activation."""
    return [
        keras.layers.Conv2D(filters, 3, strides, padding="same", use_bias=False),
        kerasbn.BatchNorm(),
        keras.layers.ReLU(),
    ]


model = keras.Sequential(
    [
        keras.Input((28, 28, 1)),
        *block(16, 1),
        *block(32, 2),
        *block(64, 2),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(10),
    ]
)
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(x, y, batch_size=128)

# Exact statistics in place of the moving averages, from some thousand training images.
kerasbn.recalibrate(model, x[:10_000], batch_size=128)
folded = kerasbn.fold(model, verbose=True)


def predict(network):
    """The outputs for 512 images, and the seconds that they took."""
    network.predict(x[:512], verbose=0)  # compiles
    start = time.perf_counter()
    outputs = network.predict(x[:512], verbose=0)
    return outputs, time.perf_counter() - start


(expected, slow), (outputs, fast) = predict(model), predict(folded)
apart = np.abs(outputs - expected).max() / np.abs(expected).max()
print(f"Outputs differ by {apart:.1e}. Prediction took {slow:.3f} s, folded {fast:.3f} s.")

folded.save("model.keras")  # loads where kerasbn is not installed
if keras.backend.backend() == "tensorflow":
    folded.export("model")  # for TensorFlow Serving
