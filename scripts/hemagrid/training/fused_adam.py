"""What must be settled before Keras is imported, and the few things only one backend has."""

import functools


def fuse_adam(optimizer):
    """Let Adam update a variable by one operation where TensorFlow has one; return it.

    Keras writes Adam (Kingma & Ba, ICLR 2015) and AdamW as some forty operations for each
    variable. TensorFlow's own computes the same formula: the graph of a network of hundreds
    of variables is traced in half the time, and a step reads and writes each of them once.
    Other optimizers and backends are left as they are.
    """
    import keras

    if keras.backend.backend() == "tensorflow" and isinstance(optimizer, keras.optimizers.Adam):
        optimizer._backend_update_step = functools.partial(_adam_step, optimizer)
    return optimizer


def _adam_step(optimizer, gradients, variables, learning_rate):
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
