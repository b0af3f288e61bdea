"""Processes of `torch.distributed` agree with the whole batch in one process.

Two processes on this machine run all cases (`torch_rank.py`). The tests compare their results with
the float64 reference on the joined batch. PyTorch's own SyncBatchNorm runs only on GPUs.
"""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from kerasbn import BatchNorm, reference

if keras.backend.backend() != "torch":
    pytest.skip("torch.distributed is PyTorch's", allow_module_level=True)

import torch

from . import torch_rank

if not torch.distributed.is_available():
    pytest.skip("this PyTorch has no torch.distributed", allow_module_level=True)

SIZES = {"equal": [6, 6], "unequal": [5, 7], "one empty": [12, 0]}


def data(shape=(12, 4, 5), *, offset=0.0, dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    x = offset + np.arange(shape[-1]) + rng.uniform(0.5, 2, shape[-1]) * rng.standard_normal(shape)
    return x.astype(dtype)


def case(task, *, sizes="equal", mask=None, options=None, offset=0.0, dtype="float32"):
    x, dy = data(offset=offset, dtype=dtype), data(seed=1, dtype=dtype)
    masks = {
        "some": np.random.default_rng(2).random((12, 4)) < 0.6,
        "first half": np.repeat(np.arange(12) >= 6, 4).reshape(12, 4),
        "all": np.zeros((12, 4), bool),
        None: None,
    }
    options = {"momentum": 0.9, "synchronized": True, "dtype": dtype, **(options or {})}
    return {
        "task": task,
        "x": x,
        "dy": dy,
        "mask": masks[mask],
        "sizes": SIZES[sizes],
        "options": options,
    }


CASES = {
    **{
        f"{sizes} sizes, {mask} masked": case("step", sizes=sizes, mask=mask)
        for sizes in SIZES
        for mask in (None, "some")
    },
    "one fully masked": case("step", mask="first half"),
    "axis 1": case("step", mask="some", options={"axis": 1}),
    "axis 1 and 2": case("step", options={"axis": (1, 2)}),
    "cumulative": case("step", options={"momentum": None, "unbiased_variance": True}),
    "renorm": case("step", mask="some", options={"renorm": True}),
    "offset": case("step", offset=1e4, options={"momentum": 0.0}),
    "masked offset": case("step", mask="some", offset=1e4, options={"momentum": 0.0}),
    "all masked": case("step", mask="all", options={"debias": True}),
    "penalty": case("penalty", dtype="float64"),
    "masked penalty": case("penalty", mask="some", sizes="unequal", dtype="float64"),
    "transforms": case("transforms", dtype="float64"),
    "masked transforms": case("transforms", mask="some", dtype="float64"),
    "data parallel": {"task": "data_parallel", "x": data((12, 4)), "sizes": [6, 6]},
}
STEPS = [name for name, c in CASES.items() if c["task"] == "step" and name != "all masked"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results of every case: a list with those of each process."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "cases.pickle").write_bytes(pickle.dumps(CASES))
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, torch_rank.__file__, str(folder)]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), "2"],
            env={**os.environ, "PYTHONPATH": path, "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=120)[0] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert not any(process.returncode for process in ranks), "\n\n".join(outputs)
    each = [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(2)]
    return {name: [one[name] for one in each] for name in CASES}


def joined(results, name, key):
    return np.concatenate([result[key] for result in results[name]])


def forward(case, x):
    """y and the cache of the float64 reference."""
    axis = case["options"].get("axis", -1)
    gamma = torch_rank.gamma_of([x.shape[a] for a in np.atleast_1d(axis)])
    mask = None if case["mask"] is None else case["mask"][..., None]
    return reference.forward(x, gamma, axis=axis, mask=mask)


@pytest.mark.parametrize("name", [name for name in STEPS if name != "renorm"])
def test_processes_are_the_reference_on_the_joined_batch(results, assert_close, name):
    case = CASES[name]
    y, cache = forward(case, case["x"])
    dx, dgamma, dbeta = reference.backward(case["dy"], cache)
    assert_close(joined(results, name, "y"), y, axes=cache.axes)
    assert_close(joined(results, name, "dx"), dx, axes=cache.axes)
    # A process has the gradients of its outputs alone, and DistributedDataParallel averages them.
    assert_close(sum(result["dgamma"] for result in results[name]), dgamma)
    assert_close(sum(result["dbeta"] for result in results[name]), dbeta)


@pytest.mark.parametrize("name", STEPS)
def test_averages_are_those_of_one_process_with_the_joined_batch(results, assert_close, name):
    case = CASES[name]
    whole = torch_rank.built({**case["options"], "synchronized": False}, case["x"].shape)
    y = whole(case["x"], training=True, mask=case["mask"])
    assert_close(joined(results, name, "y"), y.detach())
    for ours, expected in zip(results[name][0]["weights"], whole.weights, strict=True):
        assert_close(ours, expected)


@pytest.mark.parametrize("name", [*STEPS, "all masked", "data parallel"])
def test_processes_hold_the_same_weights(results, name):
    for one, other in zip(*(result["weights"] for result in results[name]), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["offset", "masked offset"])
def test_variance_is_exact_at_large_offset(results, name):
    _, cache = forward(CASES[name], CASES[name]["x"])
    variance = results[name][0]["weights"][3]
    np.testing.assert_allclose(variance, cache.sigma2.ravel(), rtol=1e-5)


def test_fully_masked_batch_moves_no_average(results):
    for result in results["all masked"]:
        assert np.isfinite(result["y"]).all()
        assert np.isfinite(result["dx"]).all()
        _, _, mean, variance, count = result["weights"]
        np.testing.assert_array_equal(mean, np.zeros(5))
        np.testing.assert_array_equal(variance, np.ones(5))
        np.testing.assert_array_equal(count, np.zeros(5))


@pytest.mark.parametrize("name", ["penalty", "masked penalty"])
def test_second_derivative_is_numerical(results, name):
    def value(x):
        y, cache = forward(CASES[name], x)
        return (reference.backward(3 * y**2, cache)[0] ** 2).sum()

    x, direction = CASES[name]["x"], data(seed=3)
    numerical = (value(x + 1e-5 * direction) - value(x - 1e-5 * direction)) / 2e-5
    gradient = joined(results, name, "dx")
    assert np.sum(gradient * direction) == pytest.approx(numerical, rel=1e-6)


@pytest.mark.parametrize("name", ["transforms", "masked transforms"])
def test_transforms_include_all_processes(results, assert_close, name):
    x, direction = CASES[name]["x"], CASES[name]["dy"]
    above, below = (forward(CASES[name], x + s * direction)[0] for s in (1e-6, -1e-6))
    assert_close(joined(results, name, "derivative"), (above - below) / 2e-6, 1e-8)
    batches = np.concatenate([result["batches"] for result in results[name]], 1)
    for batch, values in zip(batches, (x, x**2), strict=True):
        assert_close(batch, forward(CASES[name], values)[0], 1e-10)


def test_data_parallel_model_trains_like_one_process(results, assert_close):
    model = torch_rank.model_of(synchronized=False)
    torch_rank.train(model, torch.tensor(CASES["data parallel"]["x"]))
    for ours, expected in zip(results["data parallel"][0]["weights"], model.weights, strict=True):
        assert_close(ours, expected, at_least=1.0)


def test_without_a_process_group_the_layer_is_plain(run):
    x, dy = data(), data(seed=1)
    results = run(BatchNorm(synchronized=True), x, dy), run(BatchNorm(), x, dy)
    for ours, plain in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, plain)
