"""The Keras backend: seed, precision, device, and the gradient that Keras itself lacks."""

import logging
from pathlib import Path

from hemagrid.errors import InputError

logger = logging.getLogger(__name__)
CPU = Path("/proc/cpuinfo")  # of Linux
# What it calls the instructions for bfloat16: those of x86 and those of ARM.
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}


def begin(seed, precision="float32"):
    """Seed Python, NumPy and Keras, and set the precision.

    On TensorFlow without a GPU the graph optimizer is turned off: for networks of hundreds of
    layers it takes longer than a whole short run and makes no step faster. On a GPU it chooses
    the memory layout, so it stays on there.

    Args:
        seed: An int.
        precision: The config's `training.precision`: "float32"; "tensorfloat32", which is
            float32 except that recent NVIDIA GPUs (since Ampere) round the inputs of matrix
            products and convolutions to 10 bits of mantissa; or "mixed_bfloat16". TensorFlow
            and JAX use tensorfloat32 on those GPUs unless told otherwise, so it is always set.
    """
    import keras

    rounded = precision == "tensorfloat32"
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy("float32" if rounded else precision)
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        tensorflow.config.experimental.enable_tensor_float_32_execution(rounded)
        if device() == "cpu":
            options = {"disable_meta_optimizer": True}
            tensorflow.config.optimizer.set_experimental_options(options)
    elif keras.backend.backend() == "jax":
        import jax

        names = {"float32": "float32", "tensorfloat32": "tensorfloat32"}
        jax.config.update("jax_default_matmul_precision", names.get(precision))
    if precision == "mixed_bfloat16" and device() == "cpu" and not _computes_bfloat16():
        logger.warning(
            "training.precision: found mixed_bfloat16 on a CPU without instructions for it, "
            "where it can take several times as long as float32"
        )


def _computes_bfloat16():
    """Say whether the CPU has instructions for bfloat16; where that is not known, it has."""
    if not CPU.exists():
        return True
    return bool(_BFLOAT16 & set(CPU.read_text().split()))


def precision():
    """Return the precision that is computed: tensorfloat32 only where the GPU has it."""
    import keras

    policy, name = keras.config.dtype_policy().name, keras.backend.backend()
    rounded = False
    if name == "tensorflow":
        import tensorflow

        rounded = tensorflow.config.experimental.tensor_float_32_execution_enabled()
    elif name == "jax":
        import jax

        rounded = jax.config.jax_default_matmul_precision == "tensorfloat32"
    found = gpu()
    has_it = found is not None and found[1] >= (8, 0)
    return "tensorfloat32" if policy == "float32" and rounded and has_it else policy


def device():
    """Return the kind of device that Keras computes on: "cpu", "gpu" or "tpu"."""
    import keras

    kinds = {name.split(":")[0].lower() for name in keras.distribution.list_devices()}
    return next((kind for kind in ("tpu", "gpu") if kind in kinds), "cpu")


def gpu():
    """Return the name and the compute capability (major, minor) of the first GPU, or None."""
    import keras

    if device() != "gpu":
        return None
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        first = tensorflow.config.list_physical_devices("GPU")[0]
        details = tensorflow.config.experimental.get_device_details(first)
        return details.get("device_name"), details.get("compute_capability", (0, 0))
    if keras.backend.backend() == "jax":
        import jax

        first = jax.devices()[0]
        capability = str(getattr(first, "compute_capability", "0.0")).split(".")
        return first.device_kind, tuple(map(int, capability))
    return None, (0, 0)


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
