"""Small images whose pixels say which class they are of, in memory, and an encoder for them."""

from dataclasses import dataclass, replace

import torch

from helpers.runs import shaken, toy_recipe
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.dense.sources import IGNORE, MapSource
from lamina.data.options import AS_STORED
from lamina.data.sources import ArraySource
from lamina.decoder.options import DecoderOptions
from lamina.encoder.encoder import Encoder
from lamina.evaluate.dense.encoder import resized_encoder, resized_options
from lamina.evaluate.encoder_options import DenseEncoder
from lamina.evaluate.segment.data import SegmentData
from lamina.interop.backbone import Backbone, Origin
from lamina.recipes.build import build_task

CLASSES = ("ground", "wall", "sky")


@dataclass
class ToyMaps(MapSource):
    """What `toy_maps` makes."""

    images: ArraySource
    maps: torch.Tensor
    classes: tuple[str, ...] = CLASSES
    broken: tuple[int, ...] = ()

    def read_map(self, i, how=AS_STORED):
        if i in self.broken:
            raise Unreadable(Reason.LABELS, "made so")
        return self.maps[i]


def toy_maps(n=12, size=(32, 48), seed=0, channels=3, noise=20.0) -> ToyMaps:
    """Blocks of 8 x 8 px, each in the colour of its class, with noise. The first three columns have no
    class."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, len(CLASSES), (n, size[0] // 8, size[1] // 8), generator=generator)
    maps = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2).to(torch.uint8)
    images = 50.0 + 70.0 * maps[:, None].expand(-1, channels, -1, -1)
    images = images + noise * torch.randn(images.shape, generator=generator)
    maps[:, :, :3] = IGNORE
    source = ArraySource(images.clamp(0, 255).to(torch.uint8), [f"{seed}/{i}" for i in range(n)])
    return ToyMaps(source, maps)


def toy_data(n=12, n_test=4, size=(32, 48), channels=3) -> SegmentData:
    """Training and test images."""
    return SegmentData("toys", toy_maps(n, size, 0, channels), toy_maps(n_test, size, 1, channels))


def toy_backbone(name="vit_tiny_patch16_224", **encoder) -> Backbone:
    """32 x 48 px, 8 px patches, three blocks of width 96, no weight at its start."""
    whole = name.startswith("beit")  # which takes masks with tokens in the place of patches alone
    recipe = toy_recipe(name, "none", **({"hide": "replace"} if whole else {}), **encoder)
    if whole:
        recipe = replace(recipe, decoder=DecoderOptions(kind="linear"))
    return Backbone(shaken(build_task(recipe).encoder), None, Origin("toy", None, recipe))


def toy_encoder(name="vit_tiny_patch16_224", size=(32, 48), **encoder) -> Encoder:
    """The network of `toy_backbone` with its weights at another size, ready to be trained."""
    backbone = toy_backbone(name, **encoder)
    return resized_encoder(backbone, resized_options(backbone, size, DenseEncoder()))
