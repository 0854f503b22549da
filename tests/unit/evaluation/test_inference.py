import json
import logging
import os

import keras
import numpy as np
import pandas as pd
import pytest
from answers import write_answers
from PIL import Image

from hemagrid import io
from hemagrid.data.corruptions import corrupt
from hemagrid.errors import InputError
from hemagrid.evaluation import inference
from hemagrid.evaluation.predictions import read_corrupted, read_predictions
from hemagrid.models import cnns
from hemagrid.training import embeddings

FILES = (("images", "npy"), ("table", "csv"))
CLASSES = ["basophil", "ig, immature", "platelet"]
SIZE = 16
RUN = "tiny_cnn"
CNN = {"filters": [4], "batch_norm": False, "dropout": 0, "dense": 8, "dense_dropout": 0}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study with one trained run, and its network."""
    folder = tmp_path_factory.mktemp("study")
    keras.utils.set_random_seed(3)
    network = cnns.build_cnn(CNN, SIZE, len(CLASSES))
    network.get_layer("probabilities").kernel.assign(
        np.random.default_rng(3).normal(size=(8, 3)) / 20
    )
    results = folder / "results" / RUN
    results.mkdir(parents=True)
    network.save(results / "model.keras")
    subsets = {"val": (np.zeros(1), np.eye(3)[:1], np.zeros(1))}
    write_answers(results / "predictions", CLASSES, subsets)
    return folder, network


@pytest.fixture
def pictures(tmp_path, draw):
    """A folder of pictures of several sizes, with hidden files among them."""
    folder = tmp_path / "slides"
    (folder / "a" / "deep").mkdir(parents=True)
    images = draw(range(3), SIZE)
    for name, image in zip(("b.png", "a/1.png", "a/deep/2.png"), images, strict=True):
        Image.fromarray(image).save(folder / name)
    Image.fromarray(draw([1], 40)[0]).convert("L").save(folder / "c.jpg")
    (folder / ".hidden.png").write_bytes((folder / "b.png").read_bytes())
    (folder / ".cache").mkdir()
    (folder / ".cache" / "b.png").write_bytes((folder / "b.png").read_bytes())
    return folder


def classified(study, paths):
    refused = {}
    found = inference.classify(study[0] / "results" / RUN, paths, refused.__setitem__)
    return dict(found), refused


def test_folders_are_searched_in_order_without_hidden_files(pictures, tmp_path):
    names = ["a/1.png", "a/deep/2.png", "b.png", "c.jpg"]
    expected = [pictures / name for name in names]
    assert inference.find_pictures([pictures]) == expected
    given = [pictures / "c.jpg", pictures / "a"]
    assert inference.find_pictures(given) == [expected[3], *expected[:2]]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: found no files"):
        inference.find_pictures([tmp_path / "empty"])


def test_pictures_are_read_as_the_training_pictures_were(study, tmp_path, draw):
    wide = np.concatenate([draw([index], SIZE) for index in (2, 1, 2)], axis=2)[0]
    Image.fromarray(wide).save(tmp_path / "wide.png")
    record = study[0] / "results" / "dataset" / "source.json"
    record.parent.mkdir()
    record.write_text(json.dumps({"reading": {"fit": "crop", "bits": None}}))
    (expected,) = embeddings.predict(study[1], draw([1], SIZE))
    found, _ = classified(study, [tmp_path / "wide.png"])
    np.testing.assert_allclose(found[str(tmp_path / "wide.png")], expected, rtol=1e-5)
    record.unlink()  # a study of another version: padded, which is the default
    found, _ = classified(study, [tmp_path / "wide.png"])
    assert abs(found[str(tmp_path / "wide.png")] - expected).max() > 1e-4


def test_probabilities_are_those_of_the_network(study, pictures, draw):
    found, refused = classified(study, inference.find_pictures([pictures]))
    assert not refused
    expected = embeddings.predict(study[1], draw(range(3), SIZE))
    for name, probabilities in zip(("b.png", "a/1.png", "a/deep/2.png"), expected, strict=True):
        np.testing.assert_allclose(found[str(pictures / name)], probabilities, rtol=1e-5)
    assert len(found) == 4 and found[str(pictures / "c.jpg")].shape == (3,)


def test_bad_pictures_are_refused_and_the_others_are_classified(study, pictures, monkeypatch):
    (pictures / "a" / "2.png").write_bytes((pictures / "b.png").read_bytes()[:-60])
    (pictures / "notes.txt").write_text("no picture")
    (pictures / os.fsdecode(b"caf\xe9\n.png")).touch()
    paths = [*inference.find_pictures([pictures]), pictures / "gone.png"]
    monkeypatch.setattr(embeddings, "BATCH", 3)
    found, refused = classified(study, paths)
    assert refused.pop(str(pictures / "a" / "2.png")).startswith("unreadable")
    assert "Pillow" in refused.pop(str(pictures / "notes.txt"))
    assert refused.pop(f"{pictures}/caf\\udce9\\n.png") == "empty file"
    assert "broken link" in refused.pop(str(pictures / "gone.png"))
    assert not refused
    names = ["a/1.png", "a/deep/2.png", "b.png", "c.jpg"]
    assert list(found) == [str(pictures / name) for name in names]
    whole, _ = classified(study, [pictures / name for name in names])
    for name in found:
        np.testing.assert_allclose(found[name], whole[name], rtol=1e-5)


def test_at_most_a_batch_is_read_at_once(study, pictures, monkeypatch):
    read, predict = [], embeddings.predict
    monkeypatch.setattr(embeddings, "BATCH", 2)
    monkeypatch.setattr(
        embeddings,
        "predict",
        lambda model, x, size: read.append(len(x)) or predict(model, x, size),
    )
    folder = study[0] / "results" / RUN
    results = inference.classify(folder, [pictures / "b.png"] * 5, None)
    next(results)
    assert read == [2]
    assert len(list(results)) == 4 and read == [2, 2, 1]


def test_a_missing_run_is_refused_with_the_names_of_the_others(study, tmp_path):
    folder = study[0]
    assert inference.find_run(RUN, folder) == folder / "results" / RUN
    with pytest.raises(InputError, match="vgg16_cfg1: found no model.keras.*: tiny_cnn. Name"):
        inference.find_run("vgg16_cfg1", folder)
    with pytest.raises(InputError, match="trained in this study: none"):
        inference.find_run(RUN, tmp_path)


def test_a_model_that_does_not_load_is_refused_once_there_is_a_picture(tmp_path, pictures):
    (tmp_path / "model.keras").write_bytes(b"not a zip")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    paths, refused = [tmp_path / "broken.png"], {}
    assert list(inference.classify(tmp_path, paths, refused.__setitem__)) == []
    assert list(refused) == [str(tmp_path / "broken.png")]
    with pytest.raises(InputError, match="model.keras: Keras .* cannot load it"):
        list(inference.classify(tmp_path, [pictures / "b.png"], None))


def test_an_ensemble_and_a_run_with_views_classify(study, pictures, draw):
    folder, network = study
    other = keras.models.clone_model(network)
    results = folder / "results"
    (results / "other").mkdir()
    other.save(results / "other" / "model.keras")
    subsets = {"val": (np.zeros(1), np.eye(3)[:1], np.zeros(1))}
    write_answers(results / "other" / "predictions", CLASSES, subsets)
    turned = [np.rot90(draw(range(3), SIZE), turns, axes=(1, 2)) for turns in range(4)]
    views = [view for of in turned for view in (of, of[:, ::-1])]
    expected = {
        "pair": [embeddings.predict(of, views[0]) for of in (network, other)],
        f"{RUN}+views": [embeddings.predict(network, view) for view in views],
    }
    for name, made_of in {"pair": ([RUN, "other"], 1), f"{RUN}+views": ([RUN], 8)}.items():
        members, count = made_of
        write_answers(results / name / "predictions", CLASSES, subsets)
        cost = {"members": members, "views": count}
        io.write_json(results / name / "cost.json", cost)
        found = inference.classify(inference.find_run(name, folder), [pictures / "b.png"], None)
        ((_, probabilities),) = found
        mean = np.mean(expected[name], axis=0)[0]
        np.testing.assert_allclose(probabilities, mean, rtol=1e-5)
    (results / "other" / "model.keras").unlink()
    with pytest.raises(
        InputError, match=r"other: found no model.keras.*pair, tiny_cnn, tiny_cnn\+v"
    ):
        inference.find_run("pair", folder)


@pytest.fixture
def sets(study, tmp_path, draw):
    """Inputs and outputs of `predict_run` for two test sets; the second lacks a class."""
    inputs = {"model": study[0] / "results" / RUN / "model.keras"}
    for name, labels in {"train": [0, 1, 2], "test": [2, 0, 1, 1], "raabin": [2, 0]}.items():
        table = {"label": labels, "class_name": [CLASSES[k] for k in labels], "group": 7}
        table |= {"parent_id": range(5, 5 + len(labels))}
        io.write_table(tmp_path / f"{name}.csv", pd.DataFrame(table))
        np.save(tmp_path / f"{name}.npy", draw(labels, SIZE))
        inputs |= {f"{kind}_{name}": tmp_path / f"{name}.{suffix}" for kind, suffix in FILES}
    return inputs, {name: tmp_path / "out" / f"{name}.npz" for name in ("test", "raabin")}


def test_another_test_set_costs_its_own_predictions_alone(study, sets, caplog, draw):
    caplog.set_level(logging.INFO, "hemagrid")
    inputs, out = sets
    inference.predict_run(RUN, inputs, {"test": out["test"]}, "float32")
    names, found = read_predictions([out["test"]])
    assert names == CLASSES
    labels, probabilities, groups = found["test"]
    assert (list(labels), list(groups)) == ([2, 0, 1, 1], [7] * 4)
    expected = embeddings.predict(study[1], np.load(inputs["images_test"]))
    np.testing.assert_array_equal(probabilities, expected)

    def changed():
        before = {path: path.stat().st_mtime_ns for path in out.values() if path.exists()}
        inference.predict_run(RUN, inputs, out, "float32")
        return [n for n, p in out.items() if before.get(p) != p.stat().st_mtime_ns]

    assert changed() == ["raabin"]
    assert f"{RUN}: predicted already: test" in caplog.text
    assert changed() == []
    np.save(inputs["images_raabin"], draw([1, 0], SIZE))
    assert changed() == ["raabin"]
    out["test"].write_bytes(out["test"].read_bytes()[:-50])
    assert changed() == ["test"]
    network = keras.models.clone_model(study[1])
    inputs["model"] = out["test"].with_name("model.keras")
    network.save(inputs["model"])
    assert changed() == ["test", "raabin"]


def test_the_latency_of_a_network_is_measured_once(sets):
    inputs, out = sets
    out = {"test": out["test"], "latency": out["test"].with_name("latency.json")}
    inference.predict_run(RUN, inputs, out, "float32")
    found = io.read_json(out["latency"])
    assert 0 < found["median_ms"] <= found["p95_ms"] and found["images"] > 0
    assert found["environment"]["threads"] and found["environment"]["device"]
    predicted = out["test"].stat().st_mtime_ns
    out["latency"].unlink()
    inference.predict_run(RUN, inputs, out, "float32")  # as in a study of an earlier release
    assert out["test"].stat().st_mtime_ns == predicted
    measured = out["latency"].read_bytes()
    inference.predict_run(RUN, inputs, out, "float32")
    assert out["latency"].read_bytes() == measured


def test_another_corruption_costs_its_own_predictions_alone(study, sets, caplog, draw):
    caplog.set_level(logging.INFO, "hemagrid")
    inputs, out = sets
    out = {"test": out["test"], "corrupted_test": out["test"].with_name("worse.npz")}

    def predicted(*corruptions, seed=1):
        """Predict; return the answers, and what was computed for them."""
        caplog.clear()
        how = {"sets": corruptions, "seed": seed}
        inference.predict_run(RUN, inputs, out, "float32", how)
        answers = read_corrupted(out["corrupted_test"])[1]
        assert list(answers) == list(corruptions)
        return answers, [how for how in answers if f"{how[0]} {how[1]}" not in caplog.text]

    one, computed = predicted(("bubble", 3))
    assert computed == [("bubble", 3)]
    images = corrupt(np.load(inputs["images_test"]), range(5, 9), "bubble", 3, seed=1)
    np.testing.assert_array_equal(one["bubble", 3], embeddings.predict(study[1], images))
    two, computed = predicted(("pixelate", 5), ("bubble", 3))
    assert computed == [("pixelate", 5)]
    np.testing.assert_array_equal(two["bubble", 3], one["bubble", 3])
    assert not predicted(("pixelate", 5), ("bubble", 3))[1]
    assert not predicted(("bubble", 3))[1]
    assert predicted(("bubble", 3), seed=2)[1] == [("bubble", 3)]
    np.save(inputs["images_test"], draw([1, 1, 1, 1], SIZE))
    assert predicted(("bubble", 3), seed=2)[1] == [("bubble", 3)]


def test_views_are_predicted_with_their_mean_and_cost(study, sets):
    inputs, out = sets
    cost = {"parameters": 7, "images_per_second": 80.0, "seconds": 9, "peak_memory_mib": 5}
    inputs["cost"] = out["test"].with_name("cost_of_run.json")
    io.write_json(inputs["cost"], cost)
    inference.predict_run(RUN, inputs, {"test": out["test"]}, "float32")
    plain = out["test"].read_bytes()
    made = {f"predictions_{name}": path for name, path in out.items()}
    made["cost"] = out["test"].with_name("cost.json")
    # At the same place: the key is another.
    inference.predict_views(f"{RUN}+views", inputs, made, "float32")
    assert out["test"].read_bytes() != plain
    images = np.load(inputs["images_test"])
    views = [np.rot90(images, turns, axes=(1, 2)) for turns in range(4)]
    answers = [embeddings.predict(study[1], side) for v in views for side in (v, v[:, ::-1])]
    _, found = read_predictions([out["test"]])
    np.testing.assert_allclose(found["test"][1], np.mean(answers, axis=0), rtol=1e-5)
    cost = io.read_json(made["cost"])
    assert cost["members"] == [RUN] and cost["images_per_second"] == pytest.approx(10)
