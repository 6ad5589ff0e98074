"""Small classifiers, their options and batches."""

from __future__ import annotations

import torch
from torch import nn

from lamina.core.batch import Batch
from lamina.core.rng import sample_keys
from lamina.encoder.build import build_vit, wrap_vit
from lamina.encoder.options import EncoderOptions
from lamina.fusion.build import build_fusion
from lamina.fusion.options import FusionOptions
from lamina.supervised.classifier import Supervised
from lamina.supervised.options import SupervisedOptions

CLASSES = 5


PLAIN = FusionOptions(kind="none")


NETWORKS = {
    "cls": EncoderOptions(name="vit_tiny_patch16_224"),
    "registers": EncoderOptions(name="vit_small_patch16_dinov3", class_tokens=1),
    "no-cls": EncoderOptions(name="vit_base_patch16_siglip_gap_224"),
    "distilled": EncoderOptions(name="deit_tiny_distilled_patch16_224"),
    "rope": EncoderOptions(name="eva02_tiny_patch14_224"),
    "beit": EncoderOptions(name="beit_base_patch16_224", layer_scale=0.1),
}


def options_of(network: str, **changes: object) -> EncoderOptions:
    sizes = {
        "image_size": (16, 24),
        "patch_size": 8,
        "width": 32,
        "depth": 4,
        "heads": 2,
        "weight_init": "timm",
    }
    return EncoderOptions(**{**NETWORKS[network].__dict__, **sizes, **changes})


def task_of(
    encoder: EncoderOptions,
    fusion: FusionOptions = PLAIN,
    options: SupervisedOptions | None = None,
    teacher: nn.Module | None = None,
    classes: int = CLASSES,
) -> Supervised:
    torch.manual_seed(0)
    wrapped = wrap_vit(build_vit(encoder), encoder)
    task = Supervised(wrapped, build_fusion(fusion, wrapped.width, wrapped.depth), classes, options, teacher)
    for parameter in task.parameters():  # biases, gates and logits off their starting values
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape)
    return task


def batch_of(n: int = 6, seed: int = 0, size: tuple[int, int] = (16, 24)) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, *size), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (n,), generator=generator)
    return Batch(images, sample_keys(seed, 0, torch.arange(n)), None, labels)
