"""`python -m sweeps.cost`: its contenders compute the same, its tables say what was measured."""

import importlib.util
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from matplotlib import image
from matplotlib.figure import Figure

import kerasbn
from kerasbn import reference
from sweeps.cost import applications, charts, layers, networks, parts, ratios, shapes
from sweeps.harness import data

TORCH = importlib.util.find_spec("torch") is not None
MADE_WITH = [
    *["threads", "tensorflow", "keras", "kerasbn", "torch", "jax"],
    *["code", "cpu", "commit", "kernel"],
]
TIMES = ["median_microseconds", "q1", "q3"]


def over(name):
    return [f"over_{name}", f"over_{name}_q1", f"over_{name}_q3"]


def assert_close(actual, desired, tolerance):
    assert actual.shape == desired.shape
    assert np.abs(actual - desired).max() <= tolerance * np.abs(desired).max()


@pytest.mark.parametrize(
    ("shape", "dtype", "tolerance"),
    [
        ((16, 5), "float32", 1e-4),
        ((4, 6, 5), "float32", 1e-4),
        ((4, 3, 3, 5), "float32", 1e-4),
        ((4, 3, 3, 5), "bfloat16", 2e-2),  # 8 bits
    ],
)
def test_contenders_compute_batch_norm_and_its_gradients(shape, dtype, tolerance):
    x, dy = shapes.inputs(shape)
    gamma, beta, *_ = shapes.weights(5, 0)
    y, cache = reference.forward(x, gamma, beta, shapes.EPSILON)
    expected = (y, *reference.backward(dy, cache))
    calls = layers.training(shape, dtype, chain=1)
    compared = {key: call for key, call in calls.items() if key[1] not in ("relu", "four copies")}
    assert {name for _, name in compared} >= {"keras", "kerasbn", "by hand"}
    assert (("eager", "pytorch") in compared) == TORCH
    for (_, name), call in compared.items():
        found = [np.asarray(_float32(tensor)) for tensor in call()]
        for actual, desired in zip(found, expected, strict=True):
            if name == "pytorch" and actual.ndim == 4:
                actual = np.moveaxis(actual, 1, -1)
            assert_close(actual.reshape(desired.shape), desired, tolerance)


def test_layers_apart_have_inputs_of_their_own():
    x, dy = shapes.inputs((16, 5))
    calls = layers.training((16, 5), "float32", chain=3)
    apart = {key: call for key, call in calls.items() if key[0] == "xla_apart"}
    assert {name for _, name in apart} == {"keras", "kerasbn", "by hand"}
    for call in apart.values():
        found = [tensor.numpy() for tensor in call()]
        ys, dxs, parameters = found[:3], found[3:6], found[6:]
        for n in range(3):
            gamma, beta, *_ = shapes.weights(5, n)
            y, cache = reference.forward(x + n, gamma, beta, shapes.EPSILON)
            expected = (y, *reference.backward(dy + n, cache))
            actual = (ys[n], dxs[n], *parameters[2 * n : 2 * n + 2])
            for one, desired in zip(actual, expected, strict=True):
                assert_close(one, desired, 1e-4)


@pytest.mark.parametrize("shape", [(16, 5), (4, 3, 3, 5)])
def test_contenders_compute_batch_norm_with_every_batch_size(shape):
    calls = layers.batch_sizes(shape, chain=1)
    assert set(calls) == {
        (mode, name) for mode in ("known", "unknown", "changing") for name in ("keras", "kerasbn")
    }
    sizes = np.random.default_rng(0).integers(1, 2 * shape[0] - 1, 3, endpoint=True)
    assert len(set(sizes)) == 3
    gamma, beta, *_ = shapes.weights(5, 0)
    for (mode, _), call in calls.items():
        for size in sizes:
            if mode == "changing":
                x, dy = (each[:size] for each in shapes.inputs((2 * shape[0] - 1, *shape[1:])))
            else:
                x, dy = shapes.inputs(shape)
            y, cache = reference.forward(x, gamma, beta, shapes.EPSILON)
            expected = (y, *reference.backward(dy, cache))
            for actual, desired in zip(call(), expected, strict=True):
                assert_close(actual.numpy(), desired, 1e-4)


def _float32(tensor):
    return tf.cast(tensor, "float32") if tf.is_tensor(tensor) else tensor.detach().float()


@pytest.mark.parametrize("name", ["keras", "kerasbn", "by hand"])
def test_contenders_move_their_averages_and_use_them_in_inference(name):
    x, _ = shapes.inputs((16, 5))
    gamma, beta, mean, variance = shapes.weights(5, 0)
    layer = layers.LAYERS[name]((16, 5), "float32", 0)
    assert len(layer.parameters) == 2
    for _ in range(3):
        layer.call(x, True)
        mean = 0.99 * mean + 0.01 * x.mean(0)
        variance = 0.99 * variance + 0.01 * x.var(0)
    expected = gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta
    assert_close(layer.call(x, False).numpy(), expected, 1e-5)


def test_contenders_apply_the_chain_in_inference():
    x, _ = shapes.inputs((16, 5))
    expected = {"graph": x, "xla": x}
    for n in range(3):
        for mode, position in (("graph", n), ("xla", 0)):  # XLA's loop applies one layer
            gamma, beta, mean, variance = shapes.weights(5, position)
            y = gamma * (expected[mode] - mean) / np.sqrt(variance + 1e-3) + beta
            expected[mode] = y
    for (mode, _), call in layers.inference((16, 5), "float32", chain=3).items():
        assert_close(call()[0].numpy(), expected[mode], 1e-5)


def test_networks_have_batch_norm_where_they_should():
    kinds = {"plain": None, "keras": keras.layers.BatchNormalization, "kerasbn": kerasbn.BatchNorm}
    small = [net for net in networks.networks() if net.size in (1, 4)]
    expected = {("dense net", 1): 2, ("dense net", 4): 5, ("LeNet", 4): 4}  # logits, too
    for arm, kind in kinds.items():
        setting = networks.Setting(arm, 8, False)
        found = {(net.what, net.size): normed(net.model_fn(setting).model, kind) for net in small}
        assert found == (dict.fromkeys(expected, 0) if arm == "plain" else expected)
        conv_net = networks.conv_net(setting).model
        assert normed(conv_net, kind) == (0 if arm == "plain" else 10)


def test_steps_train_and_passes_agree(small_data):
    dataset = data.load("custom", small_data)
    network = next(net for net in networks.networks() if net.size == 1)
    steps, passes = networks.contenders(network._replace(batch_size=50), dataset)
    assert set(steps) == {(mode, arm) for mode in ("graph", "xla") for arm in networks.ARMS}
    losses = {key: [call()[0] for _ in range(8)] for key, call in steps.items()}
    assert all(last < first for first, *_, last in losses.values())
    np.testing.assert_allclose(losses["graph", "kerasbn"], losses["graph", "keras"], rtol=1e-3)
    plain, kerasbn_, folded = (passes["graph", arm]()[0] for arm in ("plain", "kerasbn", "folded"))
    assert plain.shape == kerasbn_.shape == folded.shape == (50, 10)
    assert set(passes) == {*steps, ("graph", "folded"), ("xla", "folded")}


def normed(model, kind):
    """How many layers are of a kind; with any other kind of batch norm, an error."""
    kinds = (keras.layers.BatchNormalization, kerasbn.BatchNorm)
    found = [type(layer) for layer in model.layers if isinstance(layer, kinds)]
    assert set(found) <= {kind}
    return len(found)


def test_ratios_are_taken_within_rounds_and_modes():
    samples = {
        ("graph", "keras"): np.array([1.0, 2.0, 4.0]),
        ("graph", "kerasbn"): np.array([0.5, 1.0, 2.0]),
        ("xla", "keras"): np.array([0.25, 0.25, 0.25]),
        ("xla", "kerasbn"): np.array([0.5, 0.5, 0.5]),
        ("eager", "pytorch"): np.array([3.0, 6.0, 12.0]),
    }
    rows = pd.DataFrame(
        ratios.rows(samples, "milliseconds", 1e3, over=("keras", "pytorch"), size="8x3")
    ).set_index(["mode", "contender"])
    assert rows.median_milliseconds.tolist() == [2000, 1000, 250, 500, 6000]
    assert rows[["q1", "q3"]].loc["graph", "keras"].tolist() == [1500, 3000]
    assert rows.over_keras.tolist() == [1, 0.5, 1, 2, 3]  # PyTorch's over graph mode's
    assert rows.over_pytorch["graph", "kerasbn"] == pytest.approx(1 / 6)
    assert (rows["size"] == "8x3").all()
    assert (rows.rounds == 3).all()
    own = {key: samples[key] for key in samples if key[1] == "kerasbn"}
    by_mode = pd.DataFrame(ratios.rows(own, "seconds", 1.0, over=(), over_modes=("graph",)))
    assert by_mode.over_graph.tolist() == [1, 0.5]
    alone = ratios.rows({("graph", "relu"): np.ones(3)}, "seconds", 1.0, over=("keras",))
    assert np.isnan(alone[0]["over_keras"])


def test_the_summary_has_geometric_means_and_the_worst_shape():
    assert ratios.geometric_mean(pd.Series([0.5, 2.0])) == pytest.approx(1.0)
    assert ratios.geometric_mean(pd.Series([1.0, 10.0, 100.0])) == pytest.approx(10.0)
    frame = pd.DataFrame(
        [
            ("5x5", "tuned", "graph", "kerasbn", 0.25),
            ("9x9", "tuned", "graph", "kerasbn", 1.0),
            ("7x7x7x7", "held out", "graph", "kerasbn", 0.75),
            ("5x5", "tuned", "graph", "keras", 1.0),
        ],
        columns=["size", "shapes", "mode", "contender", "over_keras"],
    )
    made = ratios.summary(frame, "kerasbn", "keras", ["rank", "shapes"])
    assert made.to_numpy().tolist() == [
        [2, "tuned", "0.50", "0.25", "5x5", "1.00", "9x9", 2],
        [4, "held out", "0.75", "0.75", "7x7x7x7", "0.75", "7x7x7x7", 1],
    ]
    assert made.columns.tolist()[2:] == ["mean", "best", "best at", "worst", "worst at", "of"]


def test_what_goes_with_graph_mode_in_a_chart():
    frame = pd.DataFrame(
        [("graph", "keras"), ("xla", "keras"), ("eager", "pytorch"), ("", "four copies")],
        columns=["mode", "contender"],
    ).assign(dtype="float32")
    groups = {tuple(key): group.contender.tolist() for key, group in ratios.by_mode(frame)}
    assert groups == {
        ("graph", "float32"): ["keras", "pytorch", "four copies"],
        ("xla", "float32"): ["keras"],
    }


CONTENDERS = {(m, c) for m in ("graph", "xla") for c in ("keras", "kerasbn", "by hand")}
COLUMNS = ["what", "size", "shapes", "dtype", "mode", "contender", *TIMES]


def contenders(table):
    return set(table[["mode", "contender"]].itertuples(index=False, name=None))


def test_a_run_writes_documented_tables_and_charts(small_data, tmp_path):
    done = run(
        *["--dataset=custom", f"--data_dir={small_data}", f"--results_dir={tmp_path}"],
        *["--parts=layers", "--shape=8x3", "--dtype=float32"],
        *["--rounds=2", "--seconds=0", "--threads=1"],
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "custom" / "cost"
    layers = pd.read_csv(folder / "layers.csv", keep_default_na=False)
    ratios = [*over("keras"), *over("pytorch")]
    assert layers.columns.tolist() == [*COLUMNS, *ratios, "rounds", *MADE_WITH]
    own = {("xla_apart", name) for name in ("keras", "kerasbn", "by hand")}
    own |= {("graph", "relu"), ("", "four copies"), *([("eager", "pytorch")] if TORCH else [])}
    assert contenders(layers) == CONTENDERS | own
    assert (layers.median_microseconds > 0).all()
    assert set(layers["size"] + layers.shapes) == {"8x3held out"}
    assert set(layers.rounds) == {2}
    assert set(layers.threads) == {1}
    for mode in ("graph", "xla", "xla_apart"):
        assert image.imread(folder / f"layers_{mode}_float32.png").shape[2] == 4


def test_inference_has_a_table_of_its_own():
    budget = parts.Budget(seconds=0.0, rounds=2, threads=1)
    (_, _, measure), *others = parts.work(["inference"], [(8, 3)], ["float32"], None, budget)
    assert others == []
    tables = {name: pd.DataFrame(rows) for name, rows in measure().items()}
    assert list(tables) == ["inference"]
    inference = tables["inference"]
    assert inference.columns.tolist() == [*COLUMNS, *over("keras"), *over("plain"), "rounds"]
    assert contenders(inference) == CONTENDERS


def test_batch_sizes_have_a_table_of_their_own():
    budget = parts.Budget(seconds=0.0, rounds=2, threads=1)
    (_, _, measure), *others = parts.work(["batch_sizes"], [(8, 3)], ["float32"], None, budget)
    assert others == []
    tables = {name: pd.DataFrame(rows) for name, rows in measure().items()}
    assert list(tables) == ["batch_sizes"]
    table = tables["batch_sizes"].set_index(["mode", "contender"])
    assert (table.over_keras[:, "keras"] == 1).all()
    assert (table.over_known["known"] == 1).all()
    assert (table.over_known > 0).all()
    assert (table["size"] == "8x3").all()


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--shape=500", "2 to 4 positive whole numbers"),
        ("--shape=8x0", "2 to 4 positive whole numbers"),
        ("--seconds=nan", "finite"),
        ("--parts=training", "layers|batch_sizes|inference|nets|memory|applications|backends"),
    ],
)
def test_bad_input(flag, told):
    done = run(flag)
    assert done.returncode == 2
    assert told in done.stderr
    assert flag.split("=")[1] in done.stderr
    assert "Traceback" not in done.stderr


def run(*flags):
    command = [sys.executable, "-m", "sweeps.cost", *flags]
    return subprocess.run(command, capture_output=True, text=True)


def costs(**columns):
    """Rows of `sweeps.cost`, with quartiles a tenth off."""
    rows = pd.DataFrame(columns)
    for name in [c for c in rows if c.startswith("over_")]:
        rows[f"{name}_q1"], rows[f"{name}_q3"] = 0.9 * rows[name], 1.1 * rows[name]
    return rows


@pytest.fixture
def ax():
    return Figure().add_subplot()


def test_multiples_stand_at_their_shape_from_top_to_bottom(ax):
    charts.multiples(
        costs(
            size=["8x3", "8x3", "9x9", "9x9"],
            shapes=["tuned", "tuned", "held out", "held out"],
            contender=["keras", "kerasbn", "keras", "kerasbn"],
            over_keras=[1.0, 0.5, 1.0, 2.0],
        ),
        ax,
        "keras",
    )
    dots, one, *_ = ax.lines  # of kerasbn, and where Keras is
    assert dots.get_xdata().tolist() == [0.5, 2.0]
    assert dots.get_ydata().tolist() == [0, 1]
    assert one.get_xdata() == [1, 1]
    spread = ax.collections[0].get_segments()
    assert np.allclose([segment[:, 0] for segment in spread], [[0.45, 0.55], [1.8, 2.2]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["8x3", "9x9"]
    assert ax.yaxis_inverted()
    kinds = {text.get_text(): text.xy[1] for text in ax.texts}
    assert kinds == {"tuned": -0.5, "held out": 0.5}
    assert ax.get_xscale() == "log"
    assert "Keras" in ax.get_xlabel()


def test_networks_are_drawn_in_milliseconds_by_depth(ax):
    rows = costs(
        size=["1", "2", "1", "2"],
        contender=["plain", "plain", "kerasbn", "kerasbn"],
        median_microseconds=[1000.0, 2000.0, 1500.0, 2500.0],
    ).assign(q1=500.0, q3=3000.0)
    charts.milliseconds(rows, ax, "inference pass")
    drawn = {
        container.get_label(): container.lines[0].get_xydata().tolist()
        for container in ax.containers
    }
    assert drawn == {"plain": [[1, 1], [2, 2]], "kerasbn": [[1, 1.5], [2, 2.5]]}
    assert ax.get_ylabel() == "milliseconds per inference pass"


@pytest.mark.parametrize("ratios", [(0.7, 1.2), (0.28, 1.47), (0.05, 1.4)])
def test_the_axis_of_a_chart_has_several_ticks_and_the_legend_is_left_to_the_figure(ratios):
    rows = pd.DataFrame(
        {
            "size": ["500x500", "500x25"],
            "shapes": "tuned",
            "contender": "kerasbn",
            "over_keras": ratios,
            "over_keras_q1": ratios,
            "over_keras_q3": ratios,
        }
    )
    ax = charts.multiples(rows, Figure().add_subplot(), over="keras")
    low, high = ax.get_xlim()
    ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
    assert len(ticks) >= 4
    assert any(np.isclose(tick, 1) for tick in ticks)
    assert ax.get_legend() is None
    assert ax.get_legend_handles_labels()[1] == ["kerasbn"]


def test_applications_differ_in_their_batch_norms_alone():
    nets = {arm: applications.network("MobileNetV2", arm) for arm in networks.ARMS}

    def norms(net):
        return [type(each) for each in net.layers if isinstance(each, type_of_norms)]

    type_of_norms = (kerasbn.BatchNorm, keras.layers.BatchNormalization)
    assert norms(nets["plain"]) == []
    assert norms(nets["keras"]) == [keras.layers.BatchNormalization] * 52
    assert norms(nets["kerasbn"]) == [kerasbn.BatchNorm] * 52
    nets["kerasbn"].set_weights(nets["keras"].get_weights())
    x = np.random.default_rng(0).uniform(size=(2, 96, 96, 3)).astype("float32")
    theirs, ours = (nets[arm].predict(x, verbose=0) for arm in ("keras", "kerasbn"))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_dense_net_of_applications_is_the_deepest_of_the_depth_study():
    made = applications.calls("dense net", "training step")
    assert list(made) == [("graph", "plain"), ("graph", "keras"), ("graph", "kerasbn")]
    net = networks.deepest(networks.Setting("keras", 500, jit_compile=False))
    units = [each.units for each in net.layers if isinstance(each, keras.layers.Dense)]
    assert units == [500, 400, 300, 200, 100, 50, 25, 10]
    first, second = (float(made["graph", "kerasbn"]()) for _ in range(2))
    assert np.isfinite([first, second]).all()
    assert second < first  # it learns the batch


@pytest.mark.full
def test_first_calls_are_measured_in_new_processes(monkeypatch):
    monkeypatch.setattr(applications, "_PROCESSES", 1)
    found = applications.measure_first("MobileNetV2", threads=1)
    assert list(found) == list(applications.FIRST)
    for samples in found.values():
        assert [arm for _, arm in samples] == ["plain", "keras", "kerasbn"]
        assert all(sample > 0 for (sample,) in samples.values())
    # The memory of this process does not count. A child has it until `exec`.
    held = np.ones(2**28)
    again = applications.measure_first("MobileNetV2", threads=1)
    for which in (found, again):
        assert 2**28 < which["peak memory"]["graph", "plain"] < held.nbytes
