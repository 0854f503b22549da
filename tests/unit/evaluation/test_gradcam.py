import shutil
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from answers import write_answers

from hemagrid.errors import InputError
from hemagrid.evaluation import gradcam, inference
from hemagrid.io import read_table, write_json, write_table
from hemagrid.models.cnns import build_cnn
from hemagrid.reporting.pictures import draw_sheet
from hemagrid.training.transfer import TransferModel

SIZE = 24
RED, GREEN = (2, 3), (17, 19)  # row and column of a patch of that colour
CNN = {"filters": [4], "batch_norm": True, "dropout": 0.3, "dense": 8, "dense_dropout": 0.4}


def classifier(inputs, features):
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(features))


@pytest.fixture
def colours():
    """A network of two classes that scores a picture by how much red or green it holds."""
    inputs = keras.Input((SIZE, SIZE, 3))
    maps = keras.layers.Conv2D(2, 1, activation="relu")(inputs)
    network = classifier(inputs, keras.layers.GlobalAveragePooling2D()(maps))
    # Red or green minus a third of all three, so that grey scores nothing.
    kernel = np.array([[1, 0], [0, 1], [0, 0]]) - 1 / 3
    network.layers[1].set_weights([kernel.reshape(1, 1, 3, 2), np.zeros(2)])
    network.layers[-1].set_weights([10 * np.eye(2), np.zeros(2)])
    return network


@pytest.fixture
def patches():
    """One grey picture (1, SIZE, SIZE, 3) with a red patch and a green one, 3 x 3 each."""
    picture = np.full((1, SIZE, SIZE, 3), 90, "uint8")
    for (row, column), colour in ((RED, (255, 0, 0)), (GREEN, (0, 255, 0))):
        picture[0, row - 1 : row + 2, column - 1 : column + 2] = colour
    return picture


def test_the_map_of_a_class_is_where_its_colour_is(colours, patches):
    maps = gradcam.class_maps(colours, patches.repeat(2, axis=0), np.array([0, 1]))
    assert maps.dtype == np.float32 and maps.shape == (2, SIZE, SIZE)
    for found, (row, column) in zip(maps, (RED, GREEN), strict=True):
        expected = np.zeros((SIZE, SIZE))
        expected[row - 1 : row + 2, column - 1 : column + 2] = 1
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_certain_network_is_explained_too(colours, patches):
    kernel, bias = colours.layers[-1].get_weights()
    colours.layers[-1].set_weights([kernel, bias + [1e4, 0]])
    assert colours.predict_on_batch(patches)[0, 0] == 1
    assert gradcam.class_maps(colours, patches, np.array([0]))[0][RED] == pytest.approx(1)


def test_a_class_without_evidence_has_a_map_of_zeros(colours, patches):
    colours.layers[-1].set_weights([-np.eye(2), np.zeros(2)])
    assert not gradcam.class_maps(colours, patches, np.array([1])).any()


def test_maps_do_not_depend_on_the_other_pictures(draw, monkeypatch):
    network = build_cnn(CNN, SIZE, 3)
    pictures, classes = draw([0, 1, 2, 0, 1], SIZE), np.array([0, 1, 2, 2, 0])
    together = gradcam.class_maps(network, pictures, classes)
    monkeypatch.setattr(gradcam, "BATCH", 2)
    np.testing.assert_allclose(
        gradcam.class_maps(network, pictures, classes), together, atol=1e-5
    )


def test_weights_are_the_gradients_of_the_score(draw, eager):
    """Compare a map with finite differences, one feature map at a time."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((SIZE, SIZE, 3))
    maps = keras.layers.Conv2D(3, 3, strides=2, activation="relu")(inputs / 255)
    pooled = keras.layers.Flatten()(keras.layers.AveragePooling2D(2)(maps))
    hidden = keras.layers.Dense(5, activation="tanh")(pooled)
    network = classifier(inputs, hidden)
    picture = draw([1], SIZE)
    found = gradcam.class_maps(network, picture, np.array([1]))[0]

    below = keras.Model(inputs, maps)
    logits = keras.Model(maps, keras.layers.Dense(2)(hidden))
    logits.layers[-1].set_weights(network.layers[-1].get_weights())
    activations = below.predict_on_batch(picture.astype("float32"))
    step, slopes = 0.02, []
    for k in range(3):
        raised = step * (np.arange(3) == k).astype("float32")
        high, low = (
            logits.predict_on_batch(activations + by)[0, 1] for by in (raised, -raised)
        )
        slopes.append((high - low) / (2 * step))
    expected = np.maximum(activations[0] @ np.array(slopes), 0)
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected / expected.max(), atol=0.02)


def whole(parts, pictures):
    """Pass pictures through the parts of a model that was cut."""
    below, above, output = parts
    features = below.predict_on_batch(pictures)
    for model in above:
        features = model.predict_on_batch(features)
    return keras.ops.convert_to_numpy(output(features))


def test_a_cnn_is_cut_at_its_last_convolution(draw):
    network, pictures = build_cnn(CNN | {"filters": [4, 5]}, SIZE, 3), draw([0, 1], SIZE)
    parts = gradcam.cut(network)
    assert parts[0].output.shape[1:] == (SIZE // 2, SIZE // 2, 5)
    np.testing.assert_allclose(
        whole(parts, pictures), network.predict_on_batch(pictures), atol=1e-5
    )


HEAD = {"dense": [4], "batch_norm": True, "dropout": [0.3]}


def test_every_backbone_has_feature_maps_large_enough_to_show(network, draw):
    classifier = TransferModel(network.backbone, network.boundary, HEAD, 3).from_images
    pictures = draw([0, 1], 48)
    parts = gradcam.cut(classifier)
    assert min(parts[0].output.shape[1:3]) >= gradcam.PLACES
    np.testing.assert_allclose(
        whole(parts, pictures), classifier.predict_on_batch(pictures), atol=1e-4
    )
    maps = gradcam.class_maps(classifier, pictures, np.array([0, 2]))
    assert maps.shape == (2, *parts[0].output.shape[1:3])
    assert np.isfinite(maps).all() and maps.min() >= 0 and maps.max() <= 1


def test_a_saved_transfer_run_is_explained_as_the_trained_one(draw, tmp_path):
    keras.utils.set_random_seed(5)
    pixels = keras.Input((SIZE, SIZE, 3), name="pixels")
    trunk = keras.layers.Conv2D(4, 3, strides=2, activation="relu", name="cut")(pixels / 255)
    maps = keras.layers.Conv2D(5, 3, activation="relu")(trunk)
    backbone = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(maps))
    head = {"dense": [], "batch_norm": False, "dropout": [0.3]}
    network = TransferModel(backbone, "cut", head, 3).from_images
    network.save(tmp_path / "model.keras")
    saved = inference.load_network(tmp_path / "model.keras")
    pictures, classes = draw([0, 1, 2], SIZE), np.array([0, 2, 1])
    expected = gradcam.class_maps(network, pictures, classes)
    assert expected.shape == (3, 9, 9) and expected.any()
    np.testing.assert_allclose(
        gradcam.class_maps(saved, pictures, classes), expected, atol=1e-5
    )


def test_maps_that_a_shortcut_bypasses_are_not_used():
    inputs = keras.Input((SIZE, SIZE, 3))
    first = keras.layers.Conv2D(4, 3, padding="same", name="first")(inputs)
    inside = keras.layers.Conv2D(4, 3, padding="same")(first)
    inside = keras.layers.Conv2D(4, 3, strides=8, padding="same")(inside)
    last = inside + keras.layers.AveragePooling2D(8)(first)
    assert max(last.shape[1:3]) < gradcam.PLACES
    network = classifier(inputs, keras.layers.GlobalAveragePooling2D()(last))
    below, _, _ = gradcam.cut(network)
    assert [layer.name for layer in below.layers[1:]] == ["first"]


def test_a_sum_between_layers_is_used():
    inputs = keras.Input((SIZE, SIZE, 3))
    first = keras.layers.Conv2D(4, 3, padding="same")(inputs)
    total = first + keras.layers.Conv2D(4, 3, padding="same")(first)
    network = classifier(inputs, keras.layers.GlobalAveragePooling2D()(total))
    picture = np.random.default_rng(1).normal(size=(1, SIZE, SIZE, 3)).astype("float32")
    found = gradcam.cut(network)[0].predict_on_batch(picture)
    expected = keras.Model(inputs, total).predict_on_batch(picture)
    np.testing.assert_array_equal(found, expected)


def test_a_network_without_feature_maps_is_refused():
    inputs = keras.Input((SIZE, SIZE, 3))
    network = classifier(inputs, keras.layers.Flatten()(inputs))
    with pytest.raises(InputError, match="found no layer with feature maps of 6 x 6 pixels"):
        gradcam.cut(network)


def test_a_spotlight_darkens_what_was_not_looked_at():
    picture = np.full((1, 8, 8, 3), 200, "uint8")
    picture[..., 1] = 100
    maps = np.zeros((1, 2, 2), "float32")
    maps[0, 0, 1] = 1
    (lit,) = gradcam.spotlights(picture, maps)
    assert lit.dtype == np.uint8 and lit.shape == (8, 8, 3)
    assert lit[0, 7].tolist() == [200, 100, 200]
    assert lit[7, 0].tolist() == [50, 25, 50]
    # Bilinear: brightness falls steadily between two pixels of the map.
    assert (np.diff(lit[0, :, 0].astype(int)) >= 0).all()
    assert len(np.unique(lit[0, :, 0])) > 3


def test_the_most_confident_answers_of_each_class_are_shown():
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 3])
    said = [(0, 0.6), (0, 0.9), (0, 0.9), (2, 0.8), (3, 0.7)]  # of class 0
    said += [(1, 0.5), (1, 0.6), (1, 0.7), (1, 0.6)]  # of class 1, none wrong
    said += [(2, 0.9)]  # of class 3, none right; of class 2 there is no picture
    probabilities = np.zeros((10, 4))
    for row, (label, confidence) in enumerate(said):
        probabilities[row] = (1 - confidence) / 3
        probabilities[row, label] = confidence
    blank = np.zeros(10, bool)
    rows = gradcam.choose(labels, probabilities, blank, count=2)
    assert rows.tolist() == [1, 2, 3, 4, 7, 6, 9]
    blank[[1, 3, 7, 9]] = True
    rows = gradcam.choose(labels, probabilities, blank, count=2)
    assert rows.tolist() == [2, 0, 4, 6, 8]


LONG = "\N{DROP OF BLOOD}<b>" + 196 * "x"
SETTINGS = {"subset": "test_augmented", "select_by": "val"}
CLASSES = ["basophil", LONG, "platelet"]


@pytest.fixture
def study(tmp_path, draw):
    """Inputs of `explain`: two runs, of which `second` is better, and a control."""
    labels, inputs = np.array([0, 0, 1, 1]), {"metrics": [], "models": [], "predictions": []}
    images = tmp_path / "test_augmented.npy"
    np.save(images, draw(labels, SIZE))
    runs = {"first": ("cnn", 0.5), "second": ("cnn", 0.6), "majority_class": ("control", 0.9)}
    for run, (kind, accuracy) in runs.items():
        folder = tmp_path / "results" / run
        folder.mkdir(parents=True)
        subsets = {"val": {"accuracy": {"value": accuracy}}}
        write_json(folder / "metrics.json", {"kind": kind, "subsets": subsets})
        inputs["metrics"].append(str(folder / "metrics.json"))
        if kind == "control":
            continue
        # Empty files: only those of the best run are read.
        (folder / "model.keras").touch()
        (folder / "predictions").mkdir()
        (folder / "predictions" / "test_augmented.npz").touch()
        inputs["models"].append(str(folder / "model.keras"))
        inputs["predictions"].append(str(folder / "predictions" / "test_augmented.npz"))
    build_cnn(CNN, SIZE, 3).save(inputs["models"][1])
    # Right, platelet instead of basophil, right, right; no platelets.
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0, 0.9], [0, 0.75, 0.25], [0, 1, 0]])
    answers = {"test_augmented": (labels, probabilities, np.arange(4))}
    write_answers(Path(inputs["predictions"][1]).parent, CLASSES, answers)
    copies = pd.DataFrame({"subset": "test_augmented", "policy": "augmix", "spread": [9.0] * 4})
    write_table(tmp_path / "copies.csv", copies)
    return inputs | {"images": str(images), "copies": str(tmp_path / "copies.csv")}


@pytest.fixture
def out(tmp_path):
    names = {"pictures": "pictures.npy", "table": "pictures.csv"}
    return {key: tmp_path / "explanation" / name for key, name in names.items()}


def test_only_the_best_run_is_explained(study, out, eager):
    pictures, returned, _ = gradcam.explain(study, out, SETTINGS)
    table = read_table(out["table"])
    assert list(table.columns) == [
        *("run", "subset", "row", "true", "predicted", "confidence", "right"),
    ]
    assert set(table["run"]) == {"second"} and set(table["subset"]) == {"test_augmented"}
    shown = table[["row", "true", "predicted", "right"]].to_numpy().tolist()
    assert shown == [
        [0, "basophil", "basophil", True],
        [1, "basophil", "platelet", False],
        [3, LONG, LONG, True],
        [2, LONG, LONG, True],
    ]
    assert "true\n" in Path(out["table"]).read_text()
    np.testing.assert_allclose(table["confidence"], [0.8, 0.9, 1, 0.75], atol=1e-6)
    lit, images = np.load(out["pictures"]), np.load(study["images"])[[0, 1, 3, 2]]
    assert (pictures == images).all() and (returned == lit).all()
    assert lit.dtype == np.uint8 and lit.shape == images.shape
    assert (lit <= images).all() and (lit >= np.floor(images * gradcam.DIMMEST)).all()


def test_a_run_without_feature_maps_is_passed_over(study, out, eager, tmp_path):
    """Its pictures are resized, which makes no maps of them, and cut into tokens."""
    pixels = keras.Input((SIZE, SIZE, 3))
    tokens = keras.layers.Reshape((-1, 3))(keras.layers.Resizing(8, 8)(pixels))
    features = keras.layers.Dense(4)(tokens)[:, 0]
    first, second = study["models"]
    shutil.copy(second, first)
    classifier(pixels, features).save(second)
    shutil.copy(study["predictions"][1], study["predictions"][0])
    *_, table = gradcam.explain(study, out, SETTINGS)
    assert set(table["run"]) == {"first"} and len(table) == 4
    classifier(pixels, features).save(first)
    pictures, lit, table = gradcam.explain(study, out, SETTINGS)
    assert len(pictures) == len(lit) == len(np.load(out["pictures"])) == len(table) == 0
    draw_sheet(pictures, lit, table, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").exists()


def test_explaining_twice_gives_the_same_bytes(study, out, eager):
    written = []
    for _ in range(2):
        gradcam.explain(study, out, SETTINGS)
        written.append([path.read_bytes() for path in out.values()])
    assert written[0] == written[1]


def test_no_finished_run_is_refused(study, out):
    missing = [path.replace("metrics.json", "none.json") for path in study["metrics"]]
    for metrics in (missing, study["metrics"][2:]):
        with pytest.raises(InputError, match="evaluated on val, expected a finished run"):
            gradcam.explain(study | {"metrics": metrics}, out, SETTINGS)
    assert not any(path.exists() for path in out.values())


def test_images_of_another_study_are_refused(study, out, draw):
    np.save(study["images"], draw([0, 1, 2], SIZE))
    with pytest.raises(InputError, match="found 3 images, expected 4, as many as second"):
        gradcam.explain(study, out, SETTINGS)
    assert not any(path.exists() for path in out.values())
