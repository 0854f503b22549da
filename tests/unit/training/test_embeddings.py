"""Features come batch by batch, in order, and the caches hold what the network gives."""

import numpy as np
import pytest

from hemagrid import io, logs
from hemagrid.errors import InputError
from hemagrid.models import backbones
from hemagrid.revisions import REVISIONS
from hemagrid.training import embeddings

APPLICATION, BOUNDARY, SIZE = "MobileNet", "conv_pw_11_relu", 48


class Doubler:
    """Stands in for a network and remembers the shapes it was given."""

    output = np.empty((1, 3))

    def __init__(self):
        self.shapes = []

    def predict_on_batch(self, batch):
        self.shapes.append(batch.shape)
        return batch.astype("float64") * 2


@pytest.mark.parametrize("count", [1, embeddings.BATCH, embeddings.BATCH + 6])
def test_every_row_comes_once_and_all_batches_have_one_shape(count):
    rows = np.arange(count * 3, dtype="float32").reshape(count, 3)
    model = Doubler()
    found = embeddings.predict(model, rows)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, rows * 2)
    assert set(model.shapes) == {(embeddings.BATCH, 3)}


def test_no_more_than_a_batch_is_read_at_once(sparing):
    rows = np.arange(40.0).reshape(20, 2)
    found = embeddings.predict(Doubler(), sparing(rows, most=8), batch_size=8)
    np.testing.assert_array_equal(found, rows * 2)


def test_caches_hold_what_the_backbone_gives(draw, tmp_path, eager, logged, monkeypatch):
    monkeypatch.setattr(logs, "INTERVAL", 0)
    pixels = {"train": draw(range(9), SIZE), "val": draw(range(5), SIZE, seed=1)}
    inputs = {"weights": tmp_path / "backbone.weights.h5"}
    for subset, images in pixels.items():
        inputs[subset] = tmp_path / f"{subset}.npy"
        np.save(inputs[subset], images)
    backbone = backbones.random_backbone(APPLICATION, pixels["train"], seed=1)
    backbone.save_weights(inputs["weights"])
    settings = {"application": APPLICATION, "top": BOUNDARY}

    out = {
        f"{kind}_{subset}": tmp_path / kind / f"{subset}.npy"
        for kind in ("activations", "embeddings")
        for subset in pixels
    }
    out["cost"] = tmp_path / "embeddings" / "cost.json"
    # What a killed process left.
    litter = tmp_path / "activations" / ".01234567.train.npy"
    litter.parent.mkdir()
    litter.write_bytes(bytes(1000))
    arguments = ("mobilenet", settings, "float32", inputs, out, tmp_path / "checkpoints")
    embeddings.cache_features(*arguments)
    assert not litter.exists()
    cost = io.read_json(out["cost"])
    assert (cost["images"], cost["environment"]["revision"]) == (14, REVISIONS["embed"])
    assert cost["seconds"] > 0
    trunk, _ = backbones.cut_backbone(backbone, BOUNDARY)
    for subset, images in pixels.items():
        cached = np.load(out[f"activations_{subset}"])
        assert (cached.dtype, cached.shape) == (np.float32, (len(images), 3, 3, 512))
        np.testing.assert_array_equal(cached, embeddings.predict(trunk, images))
        cached = np.load(out[f"embeddings_{subset}"])
        assert cached.dtype == np.float32
        np.testing.assert_array_equal(cached, embeddings.predict(backbone, images))
        assert f"Embedding {subset} by {APPLICATION}: " in logged()


def test_embeddings_that_are_no_numbers_are_refused(tmp_path):
    rows = np.ones((70, 3))
    rows[66, 1] = np.inf
    paths = (tmp_path / "a.npy", tmp_path / "b.npy")
    with pytest.raises(InputError, match="NaN or infinity among images 64 to 69"):
        embeddings.write_features(Doubler(), Doubler(), rows, *paths)
    assert not list(tmp_path.iterdir())


def test_progress_is_reported_while_images_are_embedded(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "INTERVAL", 0)
    done = []
    paths = (tmp_path / "a.npy", tmp_path / "b.npy")
    rows = np.ones((70, 3))
    embeddings.write_features(Doubler(), Doubler(), rows, *paths, report=done.append)
    assert done == [64, 70]


def test_an_interrupted_cache_leaves_no_file(tmp_path):
    class Breaking(Doubler):
        def predict_on_batch(self, batch):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        paths = (tmp_path / "a.npy", tmp_path / "b.npy")
        embeddings.write_features(Doubler(), Breaking(), np.ones((4, 3)), *paths)
    assert not list(tmp_path.iterdir())


def test_images_are_memory_mapped(tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((3, 4, 4, 3), "uint8"))
    assert isinstance(io.open_images(tmp_path / "images.npy"), np.memmap)
