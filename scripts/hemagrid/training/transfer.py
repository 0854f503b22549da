"""Training in phases: CNNs in one, transfer runs in three on caches and images.

`feature_extraction` trains the head on embeddings, `finetune_top` the backbone's final
layers with it on the trunk's activations, `finetune_all` the whole network on images.
Since everything below is frozen and in inference mode, the first two phases are the same
mathematics as training through the frozen network.
"""

import keras

from hemagrid.models import backbones
from hemagrid.models.heads import build_head
from hemagrid.names import FEATURE_EXTRACTION, FINETUNE_ALL, FINETUNE_TOP
from hemagrid.training import backend
from hemagrid.training.trainer import Examples, Phase, Trainer


class TransferModel:
    """A backbone cut into trunk and top under a head, and the three models made of them.

    The models share layers and variables: training one trains the others. The backbone
    runs in inference mode in all of them.
    """

    def __init__(self, backbone, boundary, head, classes):
        self.trunk, self.top = backbones.cut_backbone(backbone, boundary)
        self.head = build_head(head, backbone.output.shape[-1], classes)
        cut = keras.Input(self.top.input.shape[1:], name="activations")
        pixels = keras.Input(backbone.input.shape[1:], name="pixels")
        # Not the head itself: it would carry its optimizer into the saved model.
        self.from_embeddings = keras.Model(self.head.input, self.head.output)
        self.from_activations = keras.Model(cut, self.head(self.top(cut, training=False)))
        self.from_images = keras.Model(
            pixels, self.head(backbone(pixels, training=False)), name="classifier"
        )

    def freeze_for(self, phase):
        """Set the trainable flags for a phase and return the model that it trains."""
        self.trunk.trainable = phase == FINETUNE_ALL
        self.top.trainable = phase != FEATURE_EXTRACTION
        self.head.trainable = True
        for norm in backbones.batch_normalizations(self.trunk):
            norm.trainable = False
        for norm in backbones.batch_normalizations(self.top):
            norm.trainable = False
        for norm in backbones.batch_normalizations(self.head):
            norm.trainable = phase != FINETUNE_ALL
        return {
            FEATURE_EXTRACTION: self.from_embeddings,
            FINETUNE_TOP: self.from_activations,
            FINETUNE_ALL: self.from_images,
        }[phase]


def train_transfer(
    run, settings, weights, inputs, labels, image_size, classes, checkpoint=None
):
    """Train a head, then the top, then the whole network; return (model, trainer).

    `weights` is the backbone's file; `inputs` holds per phase the pair (train, val) of
    arrays: embeddings (N, F), trunk activations (N, h, w, c), images uint8; `labels` the
    pair of label arrays that goes with each; `checkpoint` is taken up if it holds something.
    """
    training, backbone_settings = settings["training"], settings["backbone"]
    backend.begin(settings["seed"], training["precision"])
    backbone = backbones.load_backbone(backbone_settings["application"], image_size, weights)
    # Again, so that the head does not depend on how many draws the backbone took.
    keras.utils.set_random_seed(settings["seed"])
    network = TransferModel(backbone, backbone_settings["top"], settings["head"], classes)
    names = [name for name in inputs if training[name]["epochs"]]
    trainer = Trainer(
        run,
        training,
        classes,
        settings["seed"],
        names,
        checkpoint,
        settings["head"]["weight_decay"],
    )
    rates = {FEATURE_EXTRACTION: settings["head"]["learning_rate"]}
    for name in names:
        plan, (train, val) = training[name], inputs[name]
        trainer.fit(
            Phase(
                name,
                network.freeze_for(name),
                Examples(train, labels[0]),
                Examples(val, labels[1]),
                backbone_settings["batch_size"],
                plan["epochs"],
                plan["patience"],
                rates.get(name) or plan["learning_rate"],
            )
        )
    return network.from_images, trainer
