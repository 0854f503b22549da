"""Transfer learning in three phases on one pretrained backbone.

`feature_extraction` trains the head on embeddings, `finetune_top` the backbone's final layers
and the head on the trunk's activations, `finetune_all` the whole network on images. Everything
below is frozen and in inference mode, so the first two phases do the same mathematics as
training through the frozen network.
"""

import keras

from hemagrid.models import backbones
from hemagrid.models.heads import build_head
from hemagrid.names import FEATURE_EXTRACTION, FINETUNE_ALL, FINETUNE_TOP
from hemagrid.training import backend
from hemagrid.training.trainer import Examples, Phase, Trainer


class TransferModel:
    """A backbone, cut into trunk and top, under a head.

    `from_embeddings`, `from_activations` and `from_images` share layers and variables, so
    training one trains the others. The backbone runs in inference mode in all of them.

    Args:
        backbone: A model from pixels 0-255 (B, S, S, 3) to features (B, F).
        boundary: Name of the trunk's last layer.
        head: Settings of the head, as `build_head` takes them.
        classes: Number of classes.
    """

    def __init__(self, backbone, boundary, head, classes):
        self.trunk, self.top = backbones.cut_backbone(backbone, boundary)
        self.head = build_head(head, backbone.output.shape[-1], classes)
        cut = keras.Input(self.top.input.shape[1:], name="activations")
        pixels = keras.Input(backbone.input.shape[1:], name="pixels")
        # Not the head itself, which would carry its optimizer into the saved model.
        self.from_embeddings = keras.Model(self.head.input, self.head.output)
        self.from_activations = keras.Model(cut, self.head(self.top(cut, training=False)))
        self.from_images = keras.Model(
            pixels, self.head(backbone(pixels, training=False)), name="classifier"
        )

    def freeze_for(self, phase):
        """Set the trainable flags for a phase; return the model that the phase trains."""
        self.trunk.trainable = phase == FINETUNE_ALL
        self.top.trainable = phase != FEATURE_EXTRACTION
        self.head.trainable = True
        for part in (self.trunk, self.top, self.head):
            for norm in backbones.batch_normalizations(part):
                norm.trainable = part is self.head and phase != FINETUNE_ALL
        return {
            FEATURE_EXTRACTION: self.from_embeddings,
            FINETUNE_TOP: self.from_activations,
            FINETUNE_ALL: self.from_images,
        }[phase]


def train_transfer(
    run, settings, weights, inputs, labels, image_size, classes, checkpoint=None
):
    """Train the head, then the top, then the whole network.

    Args:
        run: Name of the run.
        settings: What `config.grid.run_settings` gives for a transfer run.
        weights: Path of the backbone's weights.
        inputs: {phase: (train, val)}: embeddings (N, F), activations (N, h, w, c) and images
            uint8 (N, S, S, 3). A phase of 0 epochs is skipped, and so is `finetune_top` of a
            backbone whose top has no weights.
        labels: The label arrays (train, val) of them all.
        image_size: S.
        classes: Number of classes.
        checkpoint: A `checkpoints.Checkpoint` to continue from, or None.

    Returns:
        The model from pixels to probabilities, and the `Trainer`.
    """
    training, network = settings["training"], settings["backbone"]
    backend.begin(settings["seed"], training["precision"])
    backbone, boundary = backbones.load_backbone(network, image_size, weights)
    # Again, so that the head does not depend on how many numbers the backbone drew.
    keras.utils.set_random_seed(settings["seed"])
    model = TransferModel(backbone, boundary, settings["head"], classes)
    names = [name for name in inputs if training[name]["epochs"]]
    if not model.top.weights and FINETUNE_TOP in names:
        names.remove(FINETUNE_TOP)
    trainer = Trainer(
        run,
        training,
        classes,
        settings["seed"],
        names,
        checkpoint,
        settings["head"]["weight_decay"],
    )
    for name in names:
        plan, (train, val) = training[name], inputs[name]
        source = settings["head"] if name == FEATURE_EXTRACTION else plan
        trainer.fit(
            Phase(
                name,
                model.freeze_for(name),
                Examples(train, labels[0]),
                Examples(val, labels[1]),
                network["batch_size"],
                plan["epochs"],
                plan["patience"],
                source["learning_rate"],
            )
        )
    return model.from_images, trainer
