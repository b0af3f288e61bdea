"""`diagnose` names the fault and the layer of broken models, and finds nothing in a healthy one."""

from __future__ import annotations

import pytest

import kerasbn

from . import broken_models
from .broken_models import BROKEN, KINDS

pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")


def cases():
    """Each model with one class of batch norm, the classes by turns. The rest is marked `full`."""
    for i, make in enumerate([broken_models.control, *BROKEN]):
        for j, kind in enumerate(KINDS):
            marks = [] if i == 0 or i % 2 == j else [pytest.mark.full]
            yield pytest.param(make, kind, marks=marks, id=f"{make.__name__}-{kind.__name__}")


@pytest.mark.parametrize(("make", "kind"), list(cases()))
def test_finds_the_fault_and_no_other(make, kind):
    broken = make(kind)
    report = kerasbn.diagnose(broken.model, broken.data, batch_size=broken.batch_size)
    assert [(f.fault, f.layer) for f in report.findings] == broken.faults, f"\n{report}"
