"""How do fold, recalibrate and convert change a network's accuracy, outputs and speed?

Varied: the stage of the network. It is trained with kerasbn's layer, recalibrated, converted to
Keras's layer, folded, and saved and loaded.

Held equal: the weights of a network, and the images that all its stages get. LeNet is trained on
the data set. Networks of keras.applications have random weights, so nothing needs to be downloaded,
and the statistics of random images. Inference passes of the stages take turns, so compare the
ratios of times and not the times.

Tables in RESULTS_DIR/DATASET/tools/:

    stages.csv          one row per network and stage
    recalibration.csv   one row per seed: the depth study's deepest network after 20 training steps,
                        before and after recalibration

Columns of stages.csv:

    network         name of the network
    stage           "trained", "recalibrated", "to_keras", "folded" or "saved and loaded"
    bn_layers       number of batch-norm layers
    test_accuracy   share of the test set that is classified correctly; blank for random weights
    relative_error  largest difference from the recalibrated network's outputs, relative to the
                    largest of those; blank for the trained network
    milliseconds    median time of an inference pass
    time_over_folded
                    median ratio to the folded network's time in the same round
    batch_size      number of images per inference pass

Columns of recalibration.csv:

    seed            seed of the network
    steps           number of training steps
    bn_momentum     weight of the old value in the moving averages
    test_accuracy   test accuracy before recalibration
    test_accuracy_recalibrated
                    test accuracy after recalibration
    keras           version of Keras
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from absl import flags as absl_flags

from sweeps.harness.cli import command, flags, quick

_NETWORKS = ("MobileNetV2", "ResNet50")
# Column titles in print. They are short, so tables fit a narrow terminal.
_TITLES = {
    "bn_layers": "BN layers",
    "test_accuracy": "accuracy",
    "test_accuracy_recalibrated": "recalibrated",
    "relative_error": "error",
    "milliseconds": "ms",
    "time_over_folded": "/ folded",
    "batch_size": "batch",
    "bn_momentum": "momentum",
}
_QUICK = {"network": ["none"], "seeds": 2, "rounds": 20}


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags for the data, the networks and the number of measurements."""
    flags.define_data(values)
    quick.define(values)
    define = flags.Definer(values)
    define.integer("seeds", 6, "Number of networks to recalibrate, seeds 0 to N-1.", at_least=1)
    define.integer("epochs", 2, "Number of epochs to train LeNet.", at_least=1)
    absl_flags.DEFINE_multi_enum(
        "network",
        list(_NETWORKS),
        [*_NETWORKS, "none"],
        "Network of keras.applications to fold and convert",  # absl appends "repeat this option"
        flag_values=values,
    )
    define.integer(
        "rounds",
        60,
        "Number of times to time each inference pass. Medians are reported.",
        at_least=1,
    )


def run(values: absl_flags.FlagValues) -> int:
    """Measures everything, then writes the tables and the chart."""
    import pandas as pd
    from rich.progress import track

    from sweeps.harness import data
    from sweeps.harness.cli import progress
    from sweeps.harness.quiet import quiet_start
    from sweeps.harness.results import store

    dataset = data.load(values.dataset, values.data_dir)
    folder = store.Store(Path(values.results_dir) / dataset.name / "tools").folder
    print(f"Data: {dataset.name} from {dataset.source}", flush=True)
    with quiet_start():  # these modules import TensorFlow
        from sweeps.tools import charts, recalibration, stages

    networks = [name for name in values.network if name != "none"]
    measurements = [
        ("stages", lambda: stages.of_lenet(dataset, values.epochs, values.rounds)),
        *[
            ("stages", lambda name=name: stages.of_application(name, values.rounds // 3 or 1))
            for name in networks
        ],
        *[
            ("recalibration", lambda seed=seed: [recalibration.of_depth_network(dataset, seed)])
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
    report = recalibration.diagnosis_of_depth_network(dataset, seed=0)
    print(f"kerasbn.diagnose on the network of seed 0 and the test set: {report.summary}")
    paths.append(charts.draw(pd.DataFrame(rows["stages"]), folder))
    print("Wrote", *[f"  {path}" for path in paths], sep="\n")
    return 0


def _shown(value):
    if not isinstance(value, float):
        return value
    return "" if np.isnan(value) else f"{value:.4g}"


COMMAND = command.Command(
    name="tools",
    question=__doc__.splitlines()[0],
    define_flags=define_flags,
    run=lambda values: quick.run(values, _QUICK, run),
    captions={
        "inference.png": "The part of a bar above 1 is the time that folding saves.",
    },
    when_interrupted="Tables and the chart are written at the end, and may be from before.",
)

if __name__ == "__main__":
    sys.exit(command.main(COMMAND))
