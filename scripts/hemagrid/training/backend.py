"""The Keras backend: seed, precision, device, and the gradient that Keras itself lacks."""

from hemagrid.errors import InputError


def begin(seed, precision="float32"):
    """Seed Python, NumPy and Keras, and set the precision.

    On TensorFlow without a GPU the graph optimizer is turned off: for networks of hundreds of
    layers it takes longer than a whole short run and makes no step faster. On a GPU it chooses
    the memory layout, so it stays on there.

    Args:
        seed: An int.
        precision: A Keras dtype policy, such as "float32" or "mixed_bfloat16".
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
    """Compute a function of Keras layers and keras.ops, and its gradient.

    Args:
        function: Maps a tensor to a scalar, or to one number per row (N,) where no row
            depends on another.
        inputs: Array (N, ...).

    Returns:
        The value, and the gradient of its sum, of the shape of `inputs`, as NumPy arrays.

    Raises:
        InputError: on a backend other than TensorFlow and JAX.
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
            f"KERAS_BACKEND: found {backend}, expected tensorflow or jax, the only ones with "
            "gradients here; set it, or leave it unset for tensorflow"
        )
    return keras.ops.convert_to_numpy(value), keras.ops.convert_to_numpy(slopes)
