"""Keras's cache, and the download that fills it."""

import http.server
import threading
import time

import numpy as np
import pytest
from image_files import IDX, assert_equal_arrays, refusal, small_arrays, write_idx

from sweeps.harness import data
from sweeps.harness.data import download


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
    over = threading.Event()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

        def do_GET(self):
            if self.path == "/silent/mnist.npz":
                over.wait(60)
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
    over.set()
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
        assert time.monotonic() - start < 30
        assert "0.2 s" in message or "timed out" in message

    def test_name_that_is_not_found_in_time(self, monkeypatch):
        # urlopen's own limit does not hold while the system looks up the name.
        over = threading.Event()
        monkeypatch.setattr("urllib.request.urlopen", lambda *args, **kwargs: over.wait(60))
        monkeypatch.setattr(download, "_SECONDS_TO_ANSWER", 0.2)
        start = time.monotonic()
        assert "no answer within 0.2 s" in refusal("mnist", None)
        assert time.monotonic() - start < 30
        over.set()

    def test_limit(self):
        assert download._SECONDS_TO_ANSWER <= 5
