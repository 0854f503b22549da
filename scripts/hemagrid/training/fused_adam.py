"""Adam in one operation per variable.

Keras writes a step of Adam (Kingma & Ba, ICLR 2015, algorithm 1) and of AdamW as some forty
TensorFlow operations per variable. A network of hundreds of variables then takes twice as long
to trace, and each step reads and writes every variable many times. TensorFlow has one operation
with the same formula, so this module puts it into Keras's optimizer. For that it replaces the
optimizer's `_backend_update_step` and reads its moments, which are private to Keras; a test
holds the steps against those of Keras itself. Weight decay is not touched: Keras applies it
before this step. Remove this module when Keras calls the operation, or when tracing a large
network with Keras's own Adam no longer takes longer.
"""

import functools


def fuse_adam(optimizer):
    """Let Adam or AdamW update each variable by one operation, if on TensorFlow.

    Args:
        optimizer: A Keras optimizer. One of another kind is left as it is.

    Returns:
        The same optimizer.
    """
    import keras

    if keras.backend.backend() == "tensorflow" and isinstance(optimizer, keras.optimizers.Adam):
        optimizer._backend_update_step = functools.partial(_step, optimizer)
    return optimizer


def _step(optimizer, gradients, variables, learning_rate):
    import tensorflow

    def float32(number):
        return tensorflow.cast(number, "float32")

    step = float32(optimizer.iterations + 1)
    constants = {
        "beta1_power": float32(optimizer.beta_1) ** step,
        "beta2_power": float32(optimizer.beta_2) ** step,
        "lr": float32(learning_rate),
        "beta1": float32(optimizer.beta_1),
        "beta2": float32(optimizer.beta_2),
        "epsilon": float32(optimizer.epsilon),
    }
    for gradient, variable in zip(gradients, variables, strict=True):
        place = optimizer._get_variable_index(variable)
        tensorflow.raw_ops.ResourceApplyAdam(
            var=variable.value.handle,
            m=optimizer._momentums[place].value.handle,
            v=optimizer._velocities[place].value.handle,
            grad=gradient,
            **constants,
        )
