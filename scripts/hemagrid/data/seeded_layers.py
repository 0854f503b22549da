"""Augmented copies with keras-cv's RandAugment and AugMix, as reproducible as a file copy.

What an image becomes depends on (seed, image id, copy) alone: not on the process, the
threads or the order. keras-cv's layers do not offer that as they are:

- They draw from TensorFlow's global generator when built without a seed. Here that is a
  generator whose state is of the image under way: as many images at once as there are
  threads, and none takes another's draws.
- Their factor samplers and AugMix's Dirichlet and Beta draws use stateful, unseeded
  operations. Here they draw from the same generator, from the same distributions.

Left as upstream has it, because the study used it: RandAugment's ten operations, each
applied at a rate of 10/11; AugMix's range of operations, which excludes translate_y.
"""

import functools

# TensorFlow makes a variable of this name anew each time: its `ResourceHandle::ANONYMOUS_NAME`.
ANONYMOUS = "cd2c89b7-88b7-44c8-ad83-06c2a9158347"


def image_generator():
    """Return a generator that draws, in a graph, from the state that `begin` made there."""
    import tensorflow as tf

    class ImageGenerator(tf.random.Generator):
        def begin(self, key):
            """Make the state, anew in each run of the graph: the stream of a key (int64)."""
            self.handle = tf.raw_ops.VarHandleOp(
                dtype=tf.int64, shape=(3,), shared_name=ANONYMOUS
            )
            counter = tf.zeros(2, tf.int64)
            tf.raw_ops.AssignVariableOp(
                resource=self.handle, value=tf.concat([counter, key[None]], axis=0)
            )

        def skip(self, delta):
            return tf.raw_ops.RngReadAndSkip(
                resource=self.handle,
                alg=tf.cast(self.algorithm, tf.int32),
                delta=tf.cast(delta, tf.uint64),
            )

    return ImageGenerator.from_seed(0, alg="philox")


def seeded_layers(settings, generator):
    """Build the layers of POLICIES, in that order; all their draws are of `generator`."""
    import keras_cv
    import tensorflow as tf

    # keras-cv's layers take the global generator at construction.
    former = tf.random.get_global_generator()
    tf.random.set_global_generator(generator)

    class Normal(keras_cv.core.NormalFactorSampler):
        def __call__(self, shape=(), dtype="float32"):
            draw = generator.normal(shape, self.mean, self.stddev, dtype)
            return tf.clip_by_value(draw, self.min_value, self.max_value)

    class Uniform(keras_cv.core.UniformFactorSampler):
        def __call__(self, shape=(), dtype="float32"):
            return generator.uniform(shape, self.lower, self.upper, dtype)

    replacements = {
        keras_cv.core.NormalFactorSampler: Normal,
        keras_cv.core.UniformFactorSampler: Uniform,
    }

    class AugMix(keras_cv.layers.AugMix):
        def _apply_op(self, image, op_index):
            # Upstream asks for each operation in turn whether it is the one.
            operations = (
                self._auto_contrast,
                self._equalize,
                self._posterize,
                self._rotate,
                self._solarize,
                self._shear_x,
                self._shear_y,
                self._translate_x,
            )
            return apply_one(operations, op_index, image)

        def _gamma(self, alpha):
            return tf.random.stateless_gamma(
                tf.shape(alpha), generator.make_seeds()[:, 0], alpha
            )

        def _sample_from_dirichlet(self, alpha):
            sample = self._gamma(alpha)
            return sample / tf.reduce_sum(sample, axis=-1, keepdims=True)

        def _sample_from_beta(self, alpha, beta):
            first, second = (
                self._gamma(tf.constant(alpha)),
                self._gamma(tf.constant(beta)),
            )
            return first / (first + second)

    def draw_from_generator(layer):
        for name, sampler in list(vars(layer).items()):
            if type(sampler) in replacements:
                seeded = replacements[type(sampler)](**sampler.get_config())
                setattr(layer, name, seeded)

    randaugment = keras_cv.layers.RandAugment(
        value_range=(0, 255),
        augmentations_per_image=settings["randaugment"]["n"],
        magnitude=settings["randaugment"]["m"],
    )
    for layer in randaugment.layers:
        draw_from_generator(layer)
    augmix = AugMix(
        value_range=(0, 255),
        num_chains=settings["augmix"]["k"],
        severity=settings["augmix"]["m"],
    )
    draw_from_generator(augmix)
    tf.random.set_global_generator(former)
    return randaugment, augmix


def apply_one(functions, index, image):
    """Return what `functions[index]`, an int32 tensor, makes of the image.

    Each stays a function of its own in the graph: TensorFlow would merge them and then walk
    through all the operations of those not chosen.
    """
    import tensorflow as tf

    apart = {"_noinline": True}
    functions = [tf.function(each, experimental_attributes=apart) for each in functions]
    return tf.switch_case(index, [functools.partial(each, image) for each in functions])
