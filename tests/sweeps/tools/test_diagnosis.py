"""`kerasbn.diagnose` on a real case: the depth study's network after 20 steps at momentum 0.99."""

import pytest

from sweeps.harness import data
from sweeps.tools import recalibration


@pytest.fixture(scope="module")
def dataset():
    return data.load("mnist_5k", None)


@pytest.fixture(scope="module")
def row(dataset):
    return recalibration.of_depth_network(dataset, seed=0)


def test_it_says_in_one_sentence_what_recalibrate_would_give(dataset, row):
    report = recalibration.diagnosis_of_depth_network(dataset, seed=0)
    assert report.inference.accuracy == pytest.approx(row["test_accuracy"])
    # The row has the statistics of training images, and the report those of test images.
    assert report.recalibrated.accuracy == pytest.approx(
        row["test_accuracy_recalibrated"], abs=0.02
    )
    assert report.inference.accuracy < 0.8 < 0.9 < report.recalibrated.accuracy
    assert report.summary.startswith(
        f"Accuracy is {report.inference.accuracy:.1%} in inference mode and would be "
        f"{report.recalibrated.accuracy:.1%} after recalibrate."
    )
    assert {(f.fault, f.severity == "info") for f in report.findings} == {
        ("lagging averages", False),
        ("useless bias", True),
    }
    lagging = [f for f in report.findings if f.fault == "lagging averages"]
    assert len(lagging) == len(report.layers) == 8
    assert all("After 20 updates with momentum 0.99, 82% of" in f.sentence for f in lagging)
