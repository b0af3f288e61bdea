"""The C code of the native kernel on random shapes, under the compiler's sanitizers."""

import os
import subprocess
from pathlib import Path

import keras
import pytest

from kerasbn.kernels.native import sources

if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow's kernel", allow_module_level=True)

SANITIZERS = {
    "none": ["-O3"],
    "address,undefined": ["-O1", "-g", "-fno-sanitize-recover"],
    "thread": ["-O1", "-g"],
}


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_random_shapes_in_c(tmp_path, sanitizer):
    compiler = os.environ.get("CC", "cc")
    program = tmp_path / "fuzz"
    flags = [f for f in sources.COMPILER_FLAGS if f != "-O3"] + SANITIZERS[sanitizer]
    flags += [] if sanitizer == "none" else [f"-fsanitize={sanitizer}"]
    files = [sources.FOLDER / name for name in ("batch_norm.c", "pool.c")]
    files.insert(0, Path(__file__).with_name("native_fuzz.c"))
    command = [compiler, *flags, f"-I{sources.FOLDER}", *files, *sources.LINKER_FLAGS]
    try:
        built = subprocess.run([*map(str, command), "-o", program], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no C compiler")
    if built.returncode:
        assert sanitizer != "none", built.stderr
        pytest.skip(f"the compiler has no sanitizer {sanitizer}")
    # ThreadSanitizer does not support threads after a fork.
    arguments = ["3", "1", "without forks"] if sanitizer == "thread" else ["3"]
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr
