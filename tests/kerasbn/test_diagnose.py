"""`diagnose` names the fault and the layer of broken models, and finds nothing in a healthy one."""

from __future__ import annotations

import pytest

import kerasbn

from . import broken_models
from .broken_models import BROKEN, KINDS

pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [broken_models.control, *BROKEN], ids=lambda make: make.__name__)
def test_finds_the_fault_and_no_other(make, kind):
    broken = make(kind)
    report = kerasbn.diagnose(broken.model, broken.data, **broken.options)
    assert [(f.fault, f.layer) for f in report.findings] == broken.faults, f"\n{report}"
