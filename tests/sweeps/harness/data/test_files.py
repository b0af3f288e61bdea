"""Files of images and labels: the accepted forms, and the message for each kind of damage."""

import hashlib
import os
import struct

import numpy as np
import pytest
from image_files import (
    IDX,
    IMAGES_FILE,
    KEYS,
    LABELS_FILE,
    TITLES,
    assert_equal_arrays,
    idx_bytes,
    needs_whole_mnist,
    refusal,
    small_arrays,
    write_idx,
)

from sweeps.harness import data
from sweeps.harness.data import files


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
            (LABELS_FILE, idx_bytes(np.arange(30, dtype=np.uint8)), ["0 to 29", "from 0 to 9"]),
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
        assert f"--data_dir={path.parent} is not a readable folder" in message

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
            ({"x_train": np.full((30, 28, 28), 256)}, ["256 to 256", "from 0 to 255"]),
            ({"x_test": np.full((20, 28, 28), -1)}, ["x_test", "-1 to -1", "from 0 to 255"]),
            ({"y_train": np.arange(1, 31) % 11}, ["y_train", "0 to 10", "from 0 to 9", "ten of"]),
            ({"y_test": np.full(20, -1)}, ["-1 to -1", "from 0 to 9", "ten of the 11 classes"]),
            (
                {"y_train": np.zeros(29, np.uint8)},
                ["29 labels", "expected 30", "Replace the wrong file"],
            ),
            ({"y_train": np.array([None] * 30)}, ["holds Python objects", "np.unique"]),
            ({"x_test": np.array([None] * 20)}, ["holds Python objects", "np.stack(x_test)"]),
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
    """Arrays are labelled with a data set's name only if they are that data set."""

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
        assert f"{path}: x_train is not from {TITLES[wanted]}. Received 30 examples" in message
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
        assert "Received 60,000 examples of unknown origin" in message
        assert hashlib.md5(idx_bytes(arrays["x_train"])).hexdigest() in message

    @needs_whole_mnist
    def test_mnist_is_not_taken_for_fashion_mnist(self, whole_idx):
        # The folder's IDX files have the very names of Fashion-MNIST's.
        message = refusal("fashion_mnist", whole_idx)
        assert f"{whole_idx / IMAGES_FILE}: x_train is not from Fashion-MNIST" in message
        assert "Received 60,000 examples of MNIST" in message
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
        assert "examples of Fashion-MNIST" in refusal("mnist", tmp_path)

    def test_sums_of_fashion_mnist(self):
        # What md5sum prints for the four unzipped files. MNIST's are tested on MNIST itself.
        assert files._MD5["fashion_mnist"] == {
            "x_test": "8181f5470baa50b63fa0f6fddb340f0a",
            "y_test": "15d484375f8d13e6eb1aabb0c3f46965",
            "x_train": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "y_train": "9018921c3c673c538a1fc5bad174d6f9",
        }
