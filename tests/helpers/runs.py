"""Small runs, networks and labelled images, made up within a second, for tests of evaluation and interchange."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from lamina.data.sources import ArraySource
from lamina.encoder.options import EncoderOptions
from lamina.features.data import LabelledData
from lamina.mim import MIM
from lamina.recipes.build import build_method, resolve
from lamina.recipes.recipe import Recipe
from lamina.runs.data_facts import DataFacts
from lamina.runs.run import Run
from lamina.train import checkpoint

NAMES = [
    "vit_tiny_patch16_224",
    "vit_medium_patch16_gap_240",  # no class token
    "vit_medium_patch16_reg4_gap_256",  # registers, no class token
    "vit_base_patch16_clip_224",  # a norm before the blocks
    "eva02_tiny_patch14_224",  # rotary, swiglu
    "vit_small_patch16_rope_mixed_224",
    "vit_small_patch16_dinov3",  # class token and registers, rotary
]

# For tests of what is done with an encoder's outputs: every network on RGB, and two of them on 1 and 4 channels, since the
# number of channels changes only the first layer, which all networks have from the same class.
NAMES_AND_CHANNELS = [
    *((name, 3) for name in NAMES),
    *((name, channels) for name in NAMES[:2] for channels in (1, 4)),
]


def toy_recipe(name: str = "vit_tiny_patch16_224", fusion: str = "mff", **encoder) -> Recipe:
    """32 x 48 px, 8 px patches, three blocks of width 96."""
    start = Recipe()
    options = EncoderOptions(name=name, image_size=(32, 48), patch_size=8, width=96, depth=3, heads=3)
    return resolve(
        replace(
            start,
            encoder=replace(options, **encoder),
            fusion=replace(start.fusion, kind=fusion, layers=(0, 1, 2)),
            decoder=replace(start.decoder, width=16, depth=1, heads=2),
        )
    )


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter moved a little, so that nothing hides behind a zero, a one, or an initialisation."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def toy_run(folder: Path, recipe: Recipe, steps: tuple[int, ...] = (3,)) -> dict[int, MIM]:
    """A run with a checkpoint at each of `steps`; returns what is in them."""
    run = Run(folder)
    run.start(recipe, DataFacts("photos/", 10, "0" * 64), None)
    methods = {}
    for step in steps:
        methods[step] = shaken(build_method(recipe), seed=step)
        content = checkpoint.Checkpoint(checkpoint.model_tensors(methods[step]), {}, {"step": step})
        checkpoint.write(run.checkpoints, step, content)
    return methods


def stripes(n: int, seed: int, size: tuple[int, int] = (32, 48)) -> ArraySource:
    """Noise under stripes that are horizontal, vertical or absent: three classes that an encoder can tell."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    images = torch.randint(0, 120, (n, 3, *size), generator=generator)
    rows, columns = (torch.arange(s) // 4 % 2 * 120 for s in size)
    images[labels == 0] += rows[:, None]
    images[labels == 1] += columns
    names = [f"image-{i}.png" for i in range(n)]
    return ArraySource(images.to(torch.uint8), names, labels.tolist(), ["rows", "columns", "none"])


def stripes_folder(root: Path, seed: int = 1) -> str:
    """Stripes as files: train and val, a folder for each class; another seed has other pixels in files of the
    same names."""
    for part, source in (("train", stripes(18, seed=seed)), ("val", stripes(9, seed=seed + 1))):
        for i in range(len(source)):
            place = root / part / source.class_names[source.labels[i]]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(source.images[i].permute(1, 2, 0).numpy()).save(place / f"{i}.png")
    return str(root)


def stripes_data(n_train: int = 60, n_test: int = 30) -> LabelledData:
    return LabelledData("stripes", stripes(n_train, seed=1), stripes(n_test, seed=2))
