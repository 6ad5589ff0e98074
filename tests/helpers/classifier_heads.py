"""Small classifiers with each kind of head."""

import torch

from lamina.encoder.build import build_vit, wrap_vit
from lamina.encoder.options import EncoderOptions
from lamina.fusion.build import build_fusion
from lamina.fusion.options import FusionOptions
from lamina.supervised.classifier import Supervised
from lamina.supervised.options import SupervisedOptions

CLASSES = 5


QUIET = {"mixup": 0.0, "cutmix": 0.0, "smoothing": 0.0}


PLAIN = FusionOptions(kind="none")


def options_of(**changes: object) -> EncoderOptions:
    sizes = {
        "image_size": (16, 24),
        "patch_size": 8,
        "width": 32,
        "depth": 3,
        "heads": 2,
        "weight_init": "timm",
    }
    return EncoderOptions(name="vit_tiny_patch16_224", **{**sizes, **changes})


def task_of(options: EncoderOptions | None = None, **chosen: object) -> Supervised:
    torch.manual_seed(0)
    options = options or options_of()
    encoder = wrap_vit(build_vit(options), options)
    fusion = build_fusion(PLAIN, encoder.width, encoder.depth)
    return Supervised(encoder, fusion, CLASSES, SupervisedOptions(**{**QUIET, **chosen}))
