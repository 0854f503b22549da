"""What must be settled before Keras is imported, and the few things only one backend has."""

import contextlib
import functools
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

from hemagrid.errors import InputError

# The graph of a loop grows with each variable that passes through it: of EfficientNetV2M with
# its hundreds it takes seconds longer to make, and calling is nothing beside its steps.
LOOPED_VARIABLES = 100

_claimed = []
_listening = []  # what each `stop_signals` under way has received


def prepare(threads, resources=None, require_gpu=False):
    """Bound the threads of the numeric libraries and keep Keras's files in the working folder.

    Call it before the first import of Keras: TensorFlow reads these variables once.
    `KERAS_BACKEND` is left as the user set it. `KERAS_HOME`, where Keras keeps weights it
    fetched, becomes `resources/keras` unless set, so that a run writes nowhere else.

    A job that asked for a GPU (`resources`: "gpu", or "gres" as in SLURM) takes one of its
    own. It raises InputError if it sees none and `require_gpu`: hours of a GPU's queue must
    not go to a CPU unseen.
    """
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_HOME", str(Path("resources/keras").absolute()))
    if not _requested_gpu(resources or {}):
        return
    claim_gpu()
    if require_gpu and device() == "cpu":
        import keras

        raise InputError(
            f"{socket.gethostname()}: this job asked for a GPU, but Keras on "
            f"{keras.backend.backend()} finds none (CUDA_VISIBLE_DEVICES is "
            f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}); try nvidia-smi on that "
            "node, install the environment of envs/gpu.lock, keep the node out of the "
            "profile's jobs, or set require_gpu: false to compute on its CPU"
        )


def _requested_gpu(resources):
    return int(resources.get("gpu", 0)) > 0 or "gpu" in str(resources.get("gres", ""))


def claim_gpu():
    """Take one of the visible GPUs until this process ends, by CUDA_VISIBLE_DEVICES.

    Jobs that run side by side, on a machine or in one allocation of SLURM, get one each. A job
    waits while all are taken. Without GPUs nothing happens, nor where SLURM has given one.
    """
    devices, job = _visible_gpus(), os.environ.get("SLURM_JOB_ID")
    if job and len(devices) == 1:
        return
    while devices and not _claimed:
        for device in devices:
            # SLURM may number the GPUs of each of its jobs from 0.
            path = Path(tempfile.gettempdir(), f"hemagrid-gpu-{job or 'all'}-{device}.lock")
            lock = FileLock(path, mode=0o666)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            _claimed.append(lock)  # the system releases it when this process ends
            os.environ["CUDA_VISIBLE_DEVICES"] = device
            return
        time.sleep(5)


def _visible_gpus():
    """Return the GPUs that CUDA_VISIBLE_DEVICES names, or else all that the driver lists."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [device for device in chosen.split(",") if device]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return re.findall(r"^GPU (\d+):", listed.stdout, flags=re.MULTILINE)


@contextlib.contextmanager
def stop_signals():
    """Yield a function that says whether SIGTERM or SIGINT has come; they do nothing else."""
    received = []
    _listening.append(received)

    def note(number, frame):
        # Of two around one another both are told: neither may miss it.
        for each in _listening:
            each.append(signal.Signals(number).name)

    former = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: next(iter(received), None)
    finally:
        # By identity: two empty lists are equal.
        _listening[:] = [each for each in _listening if each is not received]
        for number, handler in former.items():
            signal.signal(number, handler)


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


def peak_memory_mib():
    """Return the largest resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)
