"""BloodMNIST is fetched under its checksum, or the reader is told how to place it."""

import functools
import hashlib
import http.server
import threading

import numpy as np
import pytest

from hemagrid.data import bloodmnist, readers
from hemagrid.errors import InputError
from hemagrid.io import open_images, read_table

NOWHERE = "http://127.0.0.1:9"  # the discard port, where nothing listens


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A small file under the checksum that the module expects for 64 pixels."""
    content = b"images"
    md5 = hashlib.md5(content).hexdigest()
    monkeypatch.setitem(bloodmnist.MD5, 64, md5)
    path = tmp_path / "published" / "bloodmnist_64.npz"
    path.parent.mkdir()
    path.write_bytes(content)
    return path


@pytest.fixture
def server(published):
    """Serve the published file; yield the address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=published.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_fetches_once_and_then_needs_no_network(server, published, tmp_path):
    folder = tmp_path / "resources"
    path = bloodmnist.fetch(64, folder, server)
    assert path == folder / "bloodmnist_64.npz"
    assert path.read_bytes() == published.read_bytes()
    assert bloodmnist.fetch(64, folder, NOWHERE) == path


def test_without_network_says_what_goes_where(published, tmp_path):
    with pytest.raises(InputError) as refusal:
        bloodmnist.fetch(64, tmp_path / "resources", NOWHERE)
    message = str(refusal.value)
    assert f"{NOWHERE}/bloodmnist_64.npz" in message
    assert bloodmnist.MD5[64] in message
    assert str(tmp_path / "resources" / "bloodmnist_64.npz") in message


def test_another_checksum_is_refused(server, published, tmp_path):
    found = hashlib.md5(b"other").hexdigest()
    planted = tmp_path / "resources" / "bloodmnist_64.npz"
    planted.parent.mkdir()
    planted.write_bytes(b"other")
    with pytest.raises(InputError, match=f"{found}, expected {bloodmnist.MD5[64]}"):
        bloodmnist.fetch(64, planted.parent, server)
    assert planted.read_bytes() == b"other"

    planted.unlink()
    published.write_bytes(b"other")
    with pytest.raises(InputError, match="could not be fetched"):
        bloodmnist.fetch(64, planted.parent, server)
    assert not list(planted.parent.iterdir())


def test_a_resolution_that_is_not_published_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"found 96, expected one of \[64, 128, 224\]"):
        bloodmnist.fetch(96, tmp_path, NOWHERE)


def test_train_becomes_the_dataset_and_test_the_external_set(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in {"train": 6, "val": 2, "test": 4}.items():
        shape = (count, 8, 8, 3)
        arrays[f"{part}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 2
    np.savez(tmp_path / "b.npz", **arrays)
    images, samples = tmp_path / "images.npy", tmp_path / "samples.csv"
    external = tmp_path / "external.npy", tmp_path / "external.csv"
    readers.from_bloodmnist(
        tmp_path / "b.npz",
        images,
        samples,
        *external,
        classes=["blast", "ig"],
        image_size=8,
    )
    assert np.array_equal(open_images(images), arrays["train_images"])
    assert np.array_equal(open_images(external[0]), arrays["test_images"])
    assert readers.read_samples(samples)["source"][5] == "b.npz/train_images[5]"
    table = read_table(external[1])
    assert table.columns.tolist() == (
        "id,label,class_name,source,sha256,parent_id,copy,policy".split(",")
    )
    assert table["parent_id"].tolist() == table["id"].tolist() == [0, 1, 2, 3]
    assert table["class_name"].tolist() == ["blast", "ig", "blast", "ig"]
    assert set(table["policy"]) == {"original"} and set(table["copy"]) == {0}


def test_another_npz_is_refused(tmp_path):
    np.savez(tmp_path / "b.npz", images=np.zeros((1, 8, 8, 3), np.uint8), labels=[0])
    outputs = [tmp_path / name for name in "abcd"]
    with pytest.raises(InputError, match="expected 'train_images'"):
        readers.from_bloodmnist(tmp_path / "b.npz", *outputs, classes=["ig"], image_size=8)
