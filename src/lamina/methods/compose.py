"""What the methods share: parts around a built network, and the schedule for a folder of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lamina.core.config import merge
from lamina.recipes.recipe import Recipe

if TYPE_CHECKING:
    from lamina.core.interfaces import Target
    from lamina.encoder.networks import Network
    from lamina.fusion.build import Fusion
    from lamina.masking.build import Masking
    from lamina.mim import MIM

Statistics = Sequence[float] | None


def around(
    vit: Network,
    recipe: Recipe,
    changes: Mapping[str, Any],
    fusion: Fusion | None = None,
    target: Target | None = None,
    mean: Statistics = None,
    std: Statistics = None,
    masking: Masking | None = None,
) -> MIM:
    """The parts of a recipe put together around a timm network, which keeps its weights and sizes.

    Args:
        vit: takes the place of the network that the recipe's `encoder` describes.
        recipe: masking, decoder, target and loss, and how the encoder hides patches.
        changes: fields of the recipe that are set, by group.
        fusion: in place of the recipe's.
        target: in place of the recipe's; needed where it is a teacher or a tokenizer.
        mean, std: of the images' channels, on [0, 1]; by default ImageNet's for 3 channels, 0.5 for others.
        masking: in place of the recipe's.
    """
    from lamina.recipes.build import assemble, enclose

    recipe = merge(recipe, changes)
    own_mean, own_std = (None if values is None else tuple(values) for values in (mean, std))
    recipe = replace(recipe, encoder=replace(recipe.encoder, mean=own_mean, std=own_std))
    encoder = enclose(vit, recipe.encoder)
    encoder.check_hiding()
    return assemble(recipe, encoder, target, fusion, masking)


def masking_and_decoder(mask_ratio: float, width: int, depth: int, heads: int) -> dict[str, dict[str, Any]]:
    """The changes to a recipe that most constructors take: the mask ratio, and the size of the decoder."""
    return {
        "masking": {"mask_ratio": mask_ratio},
        "decoder": {"width": width, "depth": depth, "heads": heads},
    }


def for_a_folder(published: Recipe, name: str) -> Recipe:
    """A published recipe with MFF: 100 epochs of batch 256, 5 of them warm-up, no stochastic depth."""
    return replace(
        published,
        name=name,
        encoder=replace(published.encoder, drop_path=0.0),
        fusion=replace(published.fusion, kind="mff", logit_lr_scale=10.0),
        optim=replace(published.optim, warmup_epochs=5.0),
        train=replace(published.train, epochs=100.0, batch_size=256),
    )
