"""keras-cv's RandAugment and AugMix with every draw seeded by the image under way.

Why this module exists: a copy must depend on (seed, image id, copy) alone, not on the
process, the threads or the order. As they are, keras-cv's layers draw from TensorFlow's
global generator, and their factor samplers and AugMix's Dirichlet and Beta draws use unseeded
operations. Here all of them draw, from the same distributions, from one generator that makes
its state anew for each image: as many images run at once as there are threads, and none takes
another's draws. The rest is as upstream has it, because the study used it: RandAugment's ten
operations, each applied at a rate of 10/11, and AugMix's range of operations, which excludes
translate_y.

What would allow its removal: layers that take a seed per image (stateless draws) under
`tf.function`, in keras-cv, Keras or elsewhere, with these ten operations; or giving up
keras-cv's exact policies for a Pillow-based RandAugment with a generator per image.
"""

import functools

# TensorFlow's `ResourceHandle::ANONYMOUS_NAME`: a variable of this name is new each time.
ANONYMOUS = "cd2c89b7-88b7-44c8-ad83-06c2a9158347"


def image_generator():
    """Return a `tf.random.Generator` whose `begin(key)` starts the stream of one image."""
    import tensorflow as tf

    class ImageGenerator(tf.random.Generator):
        def begin(self, key):
            """Start the stream of `key`, an int64 scalar, in this run of the graph."""
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
    """Build RandAugment and AugMix so that they draw from `generator` alone.

    Args:
        settings: Dict with `randaugment` (`n`, `m`) and `augmix` (`k`, `m`).
        generator: The generator of `image_generator`.

    Returns:
        The two layers. Each takes and returns a float32 image (H, W, 3), values 0 to 255.
    """
    import keras_cv
    import tensorflow as tf

    # keras-cv's layers take the global generator when they are built.
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
            # Upstream tests for each operation in turn whether it was drawn.
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
            first = self._gamma(tf.constant(alpha))
            return first / (first + self._gamma(tf.constant(beta)))

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
    """Apply `functions[index]` to an image.

    Each function stays apart in the graph. TensorFlow would merge them and then visit all
    operations of those not chosen.

    Args:
        functions: Functions from an image to an image.
        index: int32 scalar tensor.
        image: The image, a tensor.
    """
    import tensorflow as tf

    apart = {"_noinline": True}
    functions = [tf.function(each, experimental_attributes=apart) for each in functions]
    return tf.switch_case(index, [functools.partial(each, image) for each in functions])
