"""`import kerasbn` in environments that lack some backends, or all of them."""

import os
import subprocess
import sys

import keras
import pytest

# Hides installed packages. `None` in sys.modules would not do, because SciPy trips over it.
HIDE = """
import sys
from importlib.machinery import PathFinder

class Partial(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = name.partition(".")[0] in {hidden}
        return None if hidden else super().find_spec(name, path, target)

sys.meta_path = [Partial if finder is PathFinder else finder for finder in sys.meta_path]
"""

TOOLS = """
import keras, kerasbn, numpy as np
x = np.random.default_rng(0).normal(5, 2, (64, 4)).astype("float32")
layers = [keras.layers.Dense(3), keras.layers.BatchNormalization(name="bn")]
model = kerasbn.from_keras(keras.Sequential([keras.Input((4,)), *layers]))
kerasbn.recalibrate(model, x, batch_size=16)
folded = kerasbn.fold(model)
assert len(folded.layers) == 1
assert np.allclose(folded(x), model(x), atol=1e-5)
print("done")
"""

ADDED = """
import sys, keras
before = set(sys.modules)
import kerasbn
kerasbn.BatchNorm()(keras.ops.ones((4, 3)), training=True)
added = {name.partition(".")[0] for name in set(sys.modules) - before}
print(added & {"tensorflow", "jax", "torch"} - {keras.backend.backend()})
"""


@pytest.fixture
def run(tmp_path):
    """Runs code in a new Python process, without the user's Keras configuration."""

    def call(code, hidden=(), backend=None):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_HOME": str(tmp_path)}
        environment.pop("KERAS_BACKEND", None)
        if backend is not None:
            environment["KERAS_BACKEND"] = backend
        command = [sys.executable, "-c", HIDE.format(hidden=list(hidden)) + code]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    return call


def test_tools_work_with_jax_alone(run):
    pytest.importorskip("jax")
    result = run(TOOLS, hidden=["tensorflow", "torch"], backend="jax")
    assert result.stdout == "done\n", result.stderr


@pytest.mark.parametrize(
    ("hidden", "backend", "missing"),
    [
        (["tensorflow"], None, "tensorflow"),
        (["tensorflow"], "tensorflow", "tensorflow"),
        (["jax", "jaxlib"], "jax", "jax"),
        (["torch"], "torch", "torch"),
    ],
)
def test_a_missing_backend_is_one_clear_error(run, hidden, backend, missing):
    result = run("import kerasbn", hidden, backend)
    assert result.returncode == 1
    message = result.stderr.splitlines()[-1]
    assert message.startswith(f"ImportError: Keras uses the {missing} backend, but {missing} is")
    assert f"pip install 'kerasbn[{missing}]'" in message
    assert "KERAS_BACKEND" in message
    assert "During handling" not in result.stderr


def test_without_any_backend_none_is_suggested(run):
    result = run("import kerasbn", ["tensorflow", "jax", "torch"])
    assert result.stderr.splitlines()[-1].endswith("Installed backends: none.")


def test_only_the_backend_is_imported(run):
    result = run(ADDED, backend=keras.backend.backend())
    assert result.stdout == "set()\n", result.stderr
