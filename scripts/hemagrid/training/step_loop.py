"""Many training steps in one call.

Calling a TensorFlow graph from Python costs about as much as a training step of a head or a
small CNN. So the steps of small models run as a loop inside the graph. For large models a call
is cheap next to a step, and the graph of a loop grows with every variable that passes through
it, so they are called step by step. The results are the same to the bit, however many steps a
call takes; a test holds that. Keras has `steps_per_execution`, but it works inside `fit`, which
cannot stop, save and resume in the middle of an epoch. Remove this module when it can.
"""

import numpy as np

# The graph of the loop takes seconds longer to build for EfficientNetV2M with its hundreds.
LOOPED_VARIABLES = 100

RESULTS = ("loss", "cross_entropy", "accuracy")
"""What a step returns: the weighted loss that it lowers, and two measures without weights."""


def training_steps(model, batch_size, inputs):
    """Return a function that takes one or more training steps of a model.

    Args:
        model: A compiled Keras model with metrics named "cross_entropy" and "accuracy".
        batch_size: Rows per step.
        inputs: An array (N, ...) of the shape and dtype that the steps will get.

    Returns:
        A function from the inputs (K, batch_size, ...), labels int64 (K, batch_size) and
        sample weights float32 (K, batch_size) of K steps to float32 (K, 3): the `RESULTS` on
        each of these batches.
    """
    import keras

    def step_by_step(*batches):
        logs = (
            model.train_on_batch(inputs, labels, sample_weight=weights, return_dict=True)
            for inputs, labels, weights in zip(*batches, strict=True)
        )
        return np.array([[each[name] for name in RESULTS] for each in logs], "float32")

    if keras.backend.backend() != "tensorflow" or len(model.variables) > LOOPED_VARIABLES:
        return step_by_step
    import tensorflow

    def step(batch):
        logs = model.train_step(batch)
        result = tensorflow.stack([logs[name] for name in RESULTS])
        model.reset_metrics()  # not before: Keras builds them in the first step
        return result

    if model.jit_compile:
        step = tensorflow.function(step, jit_compile=True)
    specs = [
        tensorflow.TensorSpec((None, batch_size, *inputs.shape[1:]), inputs.dtype),
        tensorflow.TensorSpec((None, batch_size), "int64"),
        tensorflow.TensorSpec((None, batch_size), "float32"),
    ]

    @tensorflow.function(input_signature=specs, autograph=False)
    def loop(*batches):
        result = tensorflow.TensorSpec(len(RESULTS), "float32")
        return tensorflow.map_fn(
            step, batches, parallel_iterations=1, fn_output_signature=result
        )

    return lambda *batches: loop(*batches).numpy()
