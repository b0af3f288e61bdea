"""The report of `diagnose`: its table, its DataFrame, its chart and its lines of code."""

from __future__ import annotations

import doctest
import sys

import numpy as np
import pytest

import kerasbn
from kerasbn.tools import diagnosis

from .broken_models import BROKEN, X, Y, healthy, network

pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")


@pytest.fixture
def report():
    """The report of a network whose second batch norm has the initial averages."""
    model = healthy(kerasbn.BatchNorm)
    fresh = network(kerasbn.BatchNorm).get_layer("second")
    model.get_layer("second").moving_variance.assign(fresh.moving_variance * 100)
    return kerasbn.diagnose(model, (X, Y), batch_size=64)


def test_the_table(report, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    text = str(report)
    assert text.splitlines()[0] == (
        "Model 'classifier': 2 batch norms, measured on 512 examples in 8 batches"
    )
    for line in ("inference mode", "batch statistics", "after recalibrate", "first", "second"):
        assert f"\n{line} " in text
    assert "Most of the difference comes from 'second'." in " ".join(text.split())
    assert "\nwarning  second: Its moving averages are not those of the data" in text
    assert "\n    kerasbn.recalibrate(model, x_train)" in text
    assert repr(report) == text


def test_a_healthy_network(monkeypatch):
    report = kerasbn.diagnose(healthy(kerasbn.BatchNorm), X)
    assert str(report).endswith("No fault found.")
    assert report.cause is None


def test_the_same_fault_in_many_layers_is_printed_once():
    report = kerasbn.diagnose(network(kerasbn.BatchNorm), 100 * X)
    assert len(report.findings) > 1
    assert "The same fault in 1 more layer: second." in " ".join(str(report).split())


def test_the_frame(report):
    pd = pytest.importorskip("pandas")
    frame = report.frame()
    assert isinstance(frame, pd.DataFrame)
    assert frame.index.tolist() == ["first", "second"]
    assert frame.faults.tolist() == ["", "other statistics"]
    assert frame.drift["second"] == report.layers[1].drift
    assert frame.dtypes.loc[["features", "calls"]].tolist() == ["int64", "int64"]


def test_the_chart(report):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    ax = report.plot()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first", "second"]
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == [layer.drift for layer in report.layers]
    colors = [bar.get_facecolor() for bar in ax.patches]
    assert colors[0] != colors[1]
    assert "largest effect on the outputs" in [t.get_text() for t in ax.get_legend().get_texts()]
    _, given = plt.subplots()
    assert report.plot(given) is given
    plt.close("all")


@pytest.mark.parametrize(("package", "method"), [("pandas", "frame"), ("matplotlib", "plot")])
def test_without_the_package(report, monkeypatch, package, method):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"needs {package}: pip install {package}"):
        getattr(report, method)()


@pytest.mark.full
@pytest.mark.parametrize("make", BROKEN, ids=lambda make: make.__name__)
def test_remedies_are_python(make):
    broken = make(kerasbn.BatchNorm)
    report = kerasbn.diagnose(broken.model, broken.data, batch_size=broken.batch_size)
    for finding in report.findings:
        compile(finding.remedy, "remedy", "exec")
        assert finding.sentence.endswith(".")


def test_measured_arrays_are_float64(report):
    for layer in report.layers:
        assert {a.dtype for a in (layer.mean, layer.variance, layer.moving_mean)} == {
            np.dtype("float64")
        }


def test_the_examples_of_the_docstring():
    results = doctest.testmod(diagnosis)
    assert results.attempted > 4
    assert results.failed == 0
