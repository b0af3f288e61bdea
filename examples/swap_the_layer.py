"""Swaps kerasbn's layer into an existing model, trains it, and swaps Keras's layer back in.

    python examples/swap_the_layer.py            # CIFAR-10, which Keras downloads
    python examples/swap_the_layer.py --small    # random images, in seconds

Any Sequential or functional model will do, for example one from keras.models.load_model or from
keras.applications.
"""

import argparse

import keras
import numpy as np

import kerasbn

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--small", action="store_true", help="Use a few random images.")
parser.add_argument("--epochs", type=int, default=1, help="Epochs of training.")
arguments = parser.parse_args()

keras.utils.set_random_seed(0)
if arguments.small:
    x, y = np.random.randint(0, 256, (64, 32, 32, 3)), np.random.randint(0, 10, (64, 1))
else:
    (x, y), _ = keras.datasets.cifar10.load_data()
x = x.astype("float32") / 127.5 - 1


# 1. An existing model with keras.layers.BatchNormalization: here a small residual network.
def convolution(tensor, filters, strides=1):
    """A convolution and a batch norm."""
    tensor = keras.layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(tensor)
    return keras.layers.BatchNormalization()(tensor)


inputs = keras.Input((32, 32, 3))
hidden = keras.layers.ReLU()(convolution(inputs, 16))
branch = keras.layers.ReLU()(convolution(hidden, 16))
hidden = keras.layers.ReLU()(hidden + convolution(branch, 16))
hidden = keras.layers.ReLU()(convolution(hidden, 32, strides=2))
outputs = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(hidden))
existing = keras.Model(inputs, outputs)

# 2. The same model with kerasbn.BatchNorm: same weights, same names, same outputs.
model = kerasbn.from_keras(existing)
apart = np.abs(model.predict(x[:32], verbose=0) - existing.predict(x[:32], verbose=0)).max()
swapped = [layer.name for layer in model.layers if isinstance(layer, kerasbn.BatchNorm)]
print(f"Swapped {len(swapped)} layers. The outputs differ by {apart:.1e} at most.")

# 3. A converted model is not compiled. From here on, everything is as before.
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(x, y, batch_size=32, epochs=arguments.epochs)

# 4. Save the network so that it loads where kerasbn is not installed.
kerasbn.to_keras(model).save("trained.keras")
print("Wrote trained.keras. It contains only layers of Keras.")
