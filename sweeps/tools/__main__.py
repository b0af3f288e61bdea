"""What do the tools do to a network: its accuracy, its outputs, its speed?

The stages of the README's guide, measured: swap the layer in, train, recalibrate, fold, save and
load. LeNet is trained on the data; networks of keras.applications have random weights, as no
pretrained ones need be downloaded, and statistics of random images. Times are those of contenders
that take turns; read their ratios.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import flags as absl_flags

from sweeps.harness.cli import command, flags

if TYPE_CHECKING:
    import keras

_TITLES = {
    "bn_layers": "BN layers",
    "test_accuracy": "accuracy",
    "test_accuracy_recalibrated": "recalibrated",
    "relative_error": "error",
    "milliseconds": "ms",
    "time_over_folded": "/ folded",
    "batch_size": "batch",
    "bn_momentum": "momentum",
}  # for a narrow terminal
_NETWORKS = ("MobileNetV2", "ResNet50")
_MOMENTUM, _STEPS, _BATCH = 0.99, 20, 500  # of the network whose statistics lag behind


def define_flags(values: absl_flags.FlagValues) -> None:
    """Where the data come from, and how much to measure."""
    flags.define_data(values)

    define = flags.Definer(values)
    define.integer("seeds", 5, "Number of networks to recalibrate, seeds 0 to N-1.", at_least=1)
    define.integer("epochs", 2, "Epochs of LeNet's training.", at_least=1)
    absl_flags.DEFINE_multi_enum(
        "network",
        list(_NETWORKS),
        [*_NETWORKS, "none"],
        "Networks of keras.applications to fold and convert; give it once for each.",
        flag_values=values,
    )
    define.integer(
        "rounds",
        60,
        "Number of times to time each inference pass. Medians are reported.",
        at_least=1,
    )


def run(values: absl_flags.FlagValues) -> int:
    """Measures all of it and writes tables and a chart."""
    import pandas as pd
    from rich.progress import track

    from sweeps.harness import data
    from sweeps.harness.cli import progress
    from sweeps.harness.quiet import quiet_start
    from sweeps.harness.results import store

    dataset = data.load(values.dataset, values.data_dir)
    folder = store.Store(Path(values.results_dir) / dataset.name / "tools").folder
    print(f"Data: {dataset.name} from {dataset.source}", flush=True)
    with quiet_start():
        import kerasbn  # noqa: F401  TensorFlow comes with it

    measurements = [
        ("stages", lambda: lenet_stages(dataset, values.epochs, values.rounds)),
        *[
            ("stages", lambda name=name: network_stages(name, values.rounds // 3 or 1))
            for name in values.network
            if name != "none"
        ],
        *[
            ("recalibration", lambda seed=seed: [recalibration(dataset, seed)])
            for seed in range(values.seeds)
        ],
    ]
    rows: dict[str, list] = {"stages": [], "recalibration": []}
    for table, measure in track(measurements, "tools"):
        rows[table] += measure()
    paths = []
    for name, found in rows.items():
        frame = pd.DataFrame(found)
        progress.print_table(frame.map(_shown).rename(columns=_TITLES))
        paths.append(folder / f"{name}.csv")
        store.write_whole(paths[-1], frame.to_csv(index=False).encode())
    paths.append(draw(pd.DataFrame(rows["stages"]), folder))
    print("Wrote", *[f"  {path}" for path in paths], sep="\n")
    return 0


def lenet_stages(dataset, epochs: int, rounds: int) -> list[dict]:
    """LeNet, trained: test accuracy and time at each stage of the guide."""
    import keras

    import kerasbn
    from sweeps.harness.training import models

    def images(x):
        return x[..., None] / np.float32(255)

    keras.utils.set_random_seed(0)
    original = models.lenet(keras.layers.BatchNormalization)
    model = kerasbn.from_keras(original)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1.0), loss)
    x = images(dataset.x_train)
    model.fit(x, dataset.y_train, batch_size=256, epochs=epochs, verbose=0)
    trained = _copy(model)
    kerasbn.recalibrate(model, x[:20000], batch_size=256)
    x_test = images(dataset.x_test)

    def accuracy(net):
        return float((net.predict(x_test, verbose=0).argmax(-1) == dataset.y_test).mean())

    return _stages(
        "LeNet", {"trained": trained}, model, x_test[:1000], accuracy, x_test[:32], rounds
    )


def network_stages(name: str, rounds: int) -> list[dict]:
    """A network of keras.applications with random weights; no accuracy, but outputs and time."""
    import keras

    import kerasbn

    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(128, 96, 96, 3)).astype(np.float32)
    original = getattr(keras.applications, name)(
        input_shape=(96, 96, 3), weights=None, classes=10, classifier_activation=None
    )
    model = kerasbn.from_keras(original)
    kerasbn.recalibrate(model, x, batch_size=32)
    _vary(model)
    return _stages(name, {}, model, x, lambda net: float("nan"), x[:16], rounds)


def recalibration(dataset, seed: int) -> dict:
    """The deepest network of the depth study at Keras's momentum: accuracy before and after."""
    import keras

    import kerasbn
    from sweeps.harness.engine import runner
    from sweeps.harness.training import models
    from sweeps.harness.trial import HIDDEN_UNITS, Trial

    batch_size = min(_BATCH, len(dataset.y_train))
    trial = Trial(
        dataset=dataset.name,
        seed=seed,
        hidden_units=HIDDEN_UNITS,
        batch_norm=True,
        bn_momentum=_MOMENTUM,
        learning_rate=0.01,
        batch_size=batch_size,
        max_steps=_STEPS,
        target_accuracy=0.9,
    )
    spec = models.model_fn(trial)
    model = spec.model
    model.compile(spec.optimizer, spec.loss)
    batches = runner.batches(dataset.x_train, dataset.y_train, batch_size, seed)
    for _ in range(_STEPS):
        model.train_on_batch(*next(batches))

    def accuracy():
        predicted = model.predict(dataset.x_test, batch_size=1000, verbose=0).argmax(-1)
        return float((predicted == dataset.y_test).mean())

    before = accuracy()
    kerasbn.recalibrate(model, dataset.x_train[:10000], batch_size=batch_size)
    return {
        "seed": seed,
        "steps": _STEPS,
        "bn_momentum": _MOMENTUM,
        "test_accuracy": before,
        "test_accuracy_recalibrated": accuracy(),
        "keras": keras.__version__,
    }


def draw(stages, folder: Path) -> Path:
    """Time of an inference pass at each stage, relative to the folded network's."""
    from sweeps.harness import charts

    shown = stages[~stages.stage.isin(["trained", "saved and loaded"])]
    table = shown.pivot(index="network", columns="stage", values="time_over_folded")
    table = table[["to_keras", "recalibrated", "folded"]].loc[shown.network.unique()]
    table.columns = ["keras.layers.BatchNormalization", "kerasbn.BatchNorm", "folded"]

    def bars(ax):
        return charts.bars(table, ax, "time of an inference pass (folded = 1)")

    return charts.save(
        folder / "inference.png", bars, "What folding saves", "graph mode, medians, float32"
    )


def _stages(network, before, model, x, accuracy, x_timed, rounds) -> list[dict]:
    """A row a stage; outputs are compared with those of the recalibrated model."""
    import keras
    import tensorflow as tf

    import kerasbn
    from sweeps.harness import timing

    folded = kerasbn.fold(model)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "model.keras")
        folded.save(path)
        served = keras.models.load_model(path)
    nets: dict[str, keras.Model] = {
        **before,
        "recalibrated": model,
        "to_keras": kerasbn.to_keras(model),
        "folded": folded,
        "saved and loaded": served,
    }
    image = tf.constant(x_timed)

    tf.get_logger().setLevel("ERROR")  # it takes one function of each net for one traced anew

    def compiled(net):
        function = tf.function(lambda image: net(image, training=False))
        return lambda: function(image).numpy()

    seconds = timing.in_turn({name: compiled(net) for name, net in nets.items()}, rounds)
    expected = model.predict(x, verbose=0)

    def error(net):
        return float(np.abs(net.predict(x, verbose=0) - expected).max() / np.abs(expected).max())

    return [
        {
            "network": network,
            "stage": stage,
            "bn_layers": len(_batch_norms(net)),
            "test_accuracy": accuracy(net),
            "relative_error": float("nan") if stage in before else error(net),
            "milliseconds": 1e3 * float(np.median(seconds[stage])),
            "time_over_folded": timing.ratio(seconds[stage], seconds["folded"]),
            "batch_size": len(x_timed),
        }
        for stage, net in nets.items()
    ]


def _shown(value):
    if not isinstance(value, float):
        return value
    return "" if np.isnan(value) else f"{value:.4g}"


def _copy(model):
    import keras

    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def _batch_norms(model) -> list:
    import keras

    import kerasbn

    kinds = keras.layers.BatchNormalization, kerasbn.BatchNorm
    return [layer for layer in model._flatten_layers() if isinstance(layer, kinds)]


def _vary(model) -> None:
    """Gives the batch norm layers parameters and statistics that are not all alike."""
    import keras

    generator = np.random.default_rng(0)
    for layer in _batch_norms(model):
        mean, variance = map(keras.ops.convert_to_numpy, (layer.moving_mean, layer.moving_variance))
        noise = generator.normal(size=mean.shape)
        layer.moving_mean.assign(mean + 0.3 * np.sqrt(variance) * noise)
        layer.moving_variance.assign(variance * generator.uniform(0.5, 2.0, mean.shape))
        layer.gamma.assign(generator.uniform(0.5, 1.5, mean.shape))
        layer.beta.assign(generator.normal(0.0, 0.3, mean.shape))


COMMAND = command.Command(
    name="tools",
    question="What do fold, recalibrate and convert do to a network's accuracy, outputs and speed?",
    define_flags=define_flags,
    run=run,
    when_interrupted="Nothing was written: tables come at the end.",
)

if __name__ == "__main__":
    sys.exit(command.main(COMMAND))
