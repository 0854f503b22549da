"""BloodMNIST is fetched under its checksum, or the message says how to place it by hand."""

import functools
import hashlib
import http.server
import threading

import pytest

from hemagrid.data import bloodmnist
from hemagrid.errors import InputError

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


def test_the_file_is_fetched_once(server, published, tmp_path):
    folder = tmp_path / "resources"
    left = folder / ".bloodmnist_64.npz.part" / "tmp0a1b2c3d"  # by a fetch that was killed
    left.parent.mkdir(parents=True)
    left.touch()
    path = bloodmnist.fetch(64, folder, server)
    assert path == folder / "bloodmnist_64.npz" and list(folder.iterdir()) == [path]
    assert path.read_bytes() == published.read_bytes()
    assert path.stat().st_mode == published.stat().st_mode  # as the umask says
    assert bloodmnist.fetch(64, folder, NOWHERE) == path


def test_without_a_network_the_message_says_what_goes_where(published, tmp_path):
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


def test_a_file_under_another_name_is_refused(tmp_path):
    (tmp_path / "bloodmnist.npz").write_bytes(b"images")
    with pytest.raises(InputError, match="bloodmnist.npz: expected one of bloodmnist_64.npz"):
        bloodmnist.check(tmp_path / "bloodmnist.npz")
