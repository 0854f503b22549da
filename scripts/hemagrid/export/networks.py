"""A trained network in a format that runs without Keras, kept only if it answers alike."""

import contextlib
import importlib.util
import io
import logging
import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

from hemagrid import logs
from hemagrid.errors import InputError

LARGEST = 1e-5
"""How far a probability may be from that of the Keras network."""

SUFFIXES = {"onnx": ".onnx", "tflite": ".tflite", "savedmodel": ""}
"""The formats, each with what the name of its file ends in; a SavedModel is a folder."""
_KERAS_NAMES = {"onnx": "onnx", "tflite": "litert", "savedmodel": "tf_saved_model"}
_PACKAGES = {"onnx": ("tf2onnx", "onnx", "onnxruntime")}
_SAVED_MODEL = "saved_model.pb"


def check_packages(format):
    """Check that the packages of a format are installed.

    Raises:
        InputError: one is not. The message names the command that installs it.
    """
    wanted = _PACKAGES.get(format, ())
    if missing := [name for name in wanted if importlib.util.find_spec(name) is None]:
        raise InputError(
            f"{format}: found no package {' and no '.join(missing)} in {sys.prefix}, expected "
            f"{' and '.join(wanted)}, which hemagrid itself does not need; install them with "
            f"{sys.executable} -m pip install {' '.join(wanted)}"
        )


def export_network(network, format, images, out):
    """Write a network in another format, if it then gives the same probabilities.

    Args:
        network: A Keras model of images (N, S, S, 3) with pixels 0-255.
        format: One of `SUFFIXES`.
        images: uint8 (N, S, S, 3) to compare on.
        out: Path of the file, or of the folder of a SavedModel. What is there is replaced.

    Returns:
        The largest difference between two probabilities (0-1).

    Raises:
        InputError: the network cannot be converted, or differs by more than `LARGEST`. Then
            nothing is left behind, and what was at `out` stays.
    """
    check_packages(format)
    out = Path(out)
    if out.is_dir() and not (out / _SAVED_MODEL).exists():
        raise InputError(
            f"{out}: found a folder that holds no {_SAVED_MODEL}, expected a path that is free "
            "or an earlier export; name another with --out"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export.", dir=out.parent) as folder:
        made = Path(folder, f"network{SUFFIXES[format]}")
        try:
            _convert(network, format, made)
            answer = _READERS[format](made)
            difference = _largest_difference(network, answer, images)
        except Exception as error:  # each converter raises types of its own
            reason = str(error).strip().splitlines() or [""]
            raise InputError(
                f"{out}: the network cannot be written as {format} "
                f"({type(error).__name__}: {reason[0]}); use another of {', '.join(SUFFIXES)}"
            ) from error
        if not difference <= LARGEST:
            raise InputError(
                f"{out}: found probabilities of {format} that differ by up to {difference:.1e} "
                f"from those of Keras on {len(images)} images, expected at most {LARGEST:.0e}; "
                f"nothing was written, use another of {', '.join(SUFFIXES)}"
            )
        if out.is_dir():
            shutil.rmtree(out)
        os.replace(made, out)
    return difference


def _convert(network, format, path):
    options = {"input_signature": [network.input]}
    if format == "onnx":
        from tf2onnx.handler import tf_op

        # It tells of each of its optimizations that fails, and goes on without it.
        logging.getLogger("tf2onnx").setLevel(logging.ERROR)
        tf_op.register_handler(_erfc, 9, ["Erfc"], "", {})  # ONNX has Erf since its version 9
    if format == "tflite":
        import tensorflow

        # Operations of TensorFlow would need a runtime that holds all of TensorFlow.
        builtin = [tensorflow.lite.OpsSet.TFLITE_BUILTINS]
        options["target_spec"] = {"supported_ops": builtin}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of converters, about their own parts
        network.export(path, format=_KERAS_NAMES[format], verbose=False, **options)
        if format == "onnx":
            _keep_constants(network, path)


def _erfc(graph, node, **_):
    """Write erfc(x), of which GELU is made and which tf2onnx does not know, as 1 - erf(x)."""
    made = {"shapes": node.output_shapes, "dtypes": node.output_dtypes}
    one = graph.make_const(f"{node.name}/one", np.float32(1)).output
    graph.remove_node(node.name)
    erf = graph.make_node("Erf", node.input, **made).output
    graph.make_node("Sub", [*one, *erf], name=node.name, outputs=node.output, **made)


def _keep_constants(network, path):
    """Make constants of what tf2onnx takes for inputs: numbers that preprocessing subtracts."""
    import onnx
    import tensorflow

    model = onnx.load(path)
    pixels, *constants = model.graph.input
    if not constants:
        return
    traced = tensorflow.function(lambda images: network(images, training=False))
    signature = tensorflow.TensorSpec(network.input.shape, network.input.dtype)
    # What a traced function captures, in the order of its inputs: variables, and constants.
    captured = traced.get_concrete_function(signature).captured_inputs
    values = [value for value in captured if value.dtype != tensorflow.resource]
    for constant, value in zip(constants, values, strict=True):
        model.graph.input.remove(constant)
        kept = onnx.numpy_helper.from_array(value.numpy(), constant.name)
        model.graph.initializer.append(kept)
    onnx.save(model, path)


def _largest_difference(network, answer, images):
    from hemagrid.training import embeddings  # imports Keras

    batches = embeddings.batches(network, images)
    steps = logs.track(batches, "Comparing", total=len(images), step=embeddings.BATCH)
    return max(
        float(np.abs(answer(images[rows].astype("float32")) - expected).max())
        for rows, expected in steps
    )


def _onnx(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; its warnings are about numbers that nothing uses
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (pixels,) = session.get_inputs()
    return lambda batch: session.run(None, {pixels.name: batch})[0]


def _tflite(path):
    import tensorflow

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has moved to a package of its own
        interpreter = tensorflow.lite.Interpreter(str(path))
    (pixels,), (probabilities,) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )

    def answer(batch):
        interpreter.resize_tensor_input(pixels["index"], batch.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(pixels["index"], batch)
        interpreter.invoke()
        return interpreter.get_tensor(probabilities["index"])

    return answer


def _savedmodel(path):
    import keras

    layer = keras.layers.TFSMLayer(path, call_endpoint="serve")
    return lambda batch: keras.ops.convert_to_numpy(layer(batch))


_READERS = {"onnx": _onnx, "tflite": _tflite, "savedmodel": _savedmodel}
