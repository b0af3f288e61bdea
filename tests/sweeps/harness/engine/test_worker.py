"""How a worker starts."""

import subprocess
import sys

STARTED = """
import gc, sys
from sweeps.harness.engine.worker import _OPTIONAL, _quick_start

import pandas
with _quick_start():
    import keras
imported = [name for name in _OPTIONAL if name in sys.modules]
import matplotlib, sklearn
print(imported, sys.modules["pandas"] is pandas, gc.isenabled(), gc.get_freeze_count() > 100_000)
"""


def test_starts_without_optional_packages_and_can_import_them_afterwards():
    # In a new process, because TensorFlow may have started in this one.
    started = subprocess.run([sys.executable, "-c", STARTED], capture_output=True, text=True)
    assert started.stdout.split("\n")[0] == "['pandas'] True True True", started.stderr
