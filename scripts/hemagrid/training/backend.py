"""What must be settled before Keras is imported, and the few things only one backend has."""

from hemagrid.errors import InputError


def begin(seed, precision="float32"):
    """Seed Python, NumPy and Keras, and set the precision (a Keras dtype policy).

    On TensorFlow without a GPU the graph optimizer is switched off: on networks of
    hundreds of layers it takes longer than all steps of a short run, and the steps are
    no slower without it. On a GPU it chooses the memory layout and stays on.
    """
    import keras

    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(precision)
    if keras.backend.backend() == "tensorflow" and device() == "cpu":
        import tensorflow

        tensorflow.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def device():
    """Return the kind of device that Keras computes on: "cpu", "gpu" or "tpu"."""
    import keras

    kinds = {name.split(":")[0].lower() for name in keras.distribution.list_devices()}
    return next((kind for kind in ("tpu", "gpu") if kind in kinds), "cpu")


def gradient(function, inputs):
    """Return (value, gradient) of `function` at `inputs`, an array, both as NumPy arrays.

    `function` is made of Keras layers and keras.ops. Of a value that is no scalar the sum is
    differentiated: of one number per row, as long as rows do not mix, the gradient of each.
    Raises InputError on a backend of Keras other than TensorFlow and JAX.
    """
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow

        inputs = tensorflow.convert_to_tensor(inputs)
        with tensorflow.GradientTape() as tape:
            tape.watch(inputs)
            value = function(inputs)
        slopes = tape.gradient(value, inputs)
    elif backend == "jax":
        import jax

        value, pull_back = jax.vjp(function, jax.numpy.asarray(inputs))
        (slopes,) = pull_back(jax.numpy.ones_like(value))
    else:
        raise InputError(
            f"KERAS_BACKEND: found {backend}, expected tensorflow or jax, on which alone "
            "gradients are computed here; set it, or leave it unset for tensorflow"
        )
    return keras.ops.convert_to_numpy(value), keras.ops.convert_to_numpy(slopes)
