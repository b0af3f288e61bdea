"""Fine-tunes a network of keras.applications while its batch norms keep their statistics.

    python examples/fine_tune_with_frozen_norms.py            # ImageNet weights and CIFAR-10
    python examples/fine_tune_with_frozen_norms.py --small    # random weights and images

Small fine-tuning batches give poor batch statistics. Frozen batch norms use their moving averages
in training too, and do not change them. Gamma and beta train, like all other weights.
"""

import argparse

import keras
import numpy as np

import kerasbn

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--small", action="store_true", help="Use random weights and a few images.")
parser.add_argument("--epochs", type=int, default=1, help="Epochs of fine-tuning.")
arguments = parser.parse_args()

keras.utils.set_random_seed(0)
size, classes = 96, 10
if arguments.small:
    x, y = np.random.randint(0, 256, (32, 32, 32, 3)), np.random.randint(0, classes, (32, 1))
else:
    (x, y), _ = keras.datasets.cifar10.load_data()

backbone = keras.applications.MobileNetV2(
    input_shape=(size, size, 3),
    alpha=0.35,
    include_top=False,
    weights=None if arguments.small else "imagenet",
    pooling="avg",
)
backbone = kerasbn.from_keras(backbone)

# Freeze the statistics, and only these.
kerasbn.freeze(backbone)
norms = [layer for layer in backbone.layers if isinstance(layer, kerasbn.BatchNorm)]
before = [keras.ops.convert_to_numpy(norm.moving_mean) for norm in norms]

model = keras.Sequential(
    [
        keras.Input((32, 32, 3)),
        keras.layers.Resizing(size, size),
        keras.layers.Rescaling(1 / 127.5, offset=-1),
        backbone,
        keras.layers.Dense(classes),
    ]
)
model.compile(
    keras.optimizers.Adam(1e-4),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
model.fit(x, y, batch_size=8, epochs=arguments.epochs)

after = [keras.ops.convert_to_numpy(norm.moving_mean) for norm in norms]
unchanged = all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
print(f"The statistics of {len(norms)} frozen batch norms are unchanged: {unchanged}.")
