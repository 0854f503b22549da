"""What must be settled before Keras is imported, and the few things only one backend has."""

import functools

# The graph of a loop grows with each variable that passes through it: of EfficientNetV2M with
# its hundreds it takes seconds longer to make, and calling is nothing beside its steps.
LOOPED_VARIABLES = 100


def training_steps(model, batch_size, inputs):
    """Return a function that takes training steps of a compiled model, many in one call.

    It maps the inputs (K, batch_size, ...), labels int64 (K, batch_size) and sample weights
    float32 (K, batch_size) of K steps to float32 (K, 2): the loss and the accuracy of each of
    these batches. `inputs` is an array (N, ...) of the kind that it will get. Of a model of few
    variables (a head, a CNN) the steps are a loop within TensorFlow's graph, because calling it
    costs as much as a step of a head. They are the same to the bit, however many in a call.
    """
    import keras

    looped = len(model.variables) <= LOOPED_VARIABLES
    if keras.backend.backend() != "tensorflow" or not looped:
        return functools.partial(_step_by_step, model)
    import tensorflow

    def step(batch):
        logs = model.train_step(batch)
        result = tensorflow.stack([logs["loss"], logs["accuracy"]])
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
    def steps(*batches):
        result = tensorflow.TensorSpec(2, "float32")
        return tensorflow.map_fn(
            step, batches, parallel_iterations=1, fn_output_signature=result
        )

    return lambda *batches: steps(*batches).numpy()


def _step_by_step(model, *batches):
    import numpy as np

    logs = (
        model.train_on_batch(inputs, labels, sample_weight=weights, return_dict=True)
        for inputs, labels, weights in zip(*batches, strict=True)
    )
    return np.array([[each["loss"], each["accuracy"]] for each in logs], "float32")
