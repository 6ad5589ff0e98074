"""How large a study is, and the recipe that all of its runs start from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, NOT_NEGATIVE, Range, check_ranges
from lamina.methods.catalog import recipe as named
from lamina.recipes.recipe import Recipe

if TYPE_CHECKING:
    from lamina.data.sources import Source

Pool = Literal["cls", "mean"]
LOGIT_LR_SCALE = 30.0
"""Short runs: without it the softmax logits of the layers could not move, whatever the data says."""


FORMER_NAMES = {"num_train": "bank", "num_test": "test"}
"""Options by the names that study.json and result.json have for them, since the first studies."""


@dataclass(frozen=True)
class StudyOptions:
    """Length of a study's runs, and what they are measured on."""

    seeds: Annotated[int, COUNT] = 3
    """Number of runs of each arm, with different seeds. Take 3 or more for a useful interval."""
    size: Literal["quick", "full"] = "quick"
    """Length of the runs. quick: at most 40 minutes for the study on two cores (28 px images). full: at most
    150 minutes."""
    steps: Annotated[int | None, Range(8)] = None
    """Number of steps of each run, in place of the number that size chooses."""
    batch_size: Annotated[int, COUNT] = 128
    """Number of images in each step."""
    image_size: Annotated[int | None, COUNT] = None
    """Side of the images in pixels. Unset: that of the images up to 64 px, and 64 for larger ones."""
    patch_size: Annotated[int | None, COUNT] = None
    """Side of a patch in pixels. Unset: 4 for images up to 32 px, 8 for larger ones."""
    width: Annotated[int, COUNT] = 96
    """Embedding width D of the encoder, a multiple of 32."""
    depth: Annotated[int, COUNT] = 12
    """Number of blocks of the encoder."""
    pool: Pool = "cls"
    """What the head of the supervised arm reads: the class token, or the mean of the patch tokens."""
    num_train: Annotated[int, COUNT] = 3000
    """Number of labelled training images on which the probes are chosen and fitted."""
    num_test: Annotated[int, COUNT] = 2000
    """Number of held-out images that the probes are tested on."""
    workers: Annotated[int, NOT_NEGATIVE] = 1
    """Number of processes that read images; 0: the training process reads them. Results do not depend on
    it."""
    device: str = "auto"
    """Where to compute: auto (a GPU where there is one), cpu, cuda, cuda:1 or mps."""

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        check_ranges(self)
        if self.width % 32:
            raise LaminaError(f"width is {self.width}; give a multiple of 32: a head has 32 channels")


def base_recipe(options: StudyOptions, source: Source, steps: int) -> Recipe:
    """MAE with all blocks fused, as small as the images allow; arms change one thing in it.

    Learning rate 1e-3 at 128 images, a tenth of the steps warm-up, mean and std of the images.
    """
    channels, height, width = source.read(0).shape
    small = max(height, width) <= 64
    side = options.image_size
    sides = (side, side) if side is not None else (height, width) if small else (64, 64)
    patch = options.patch_size or (4 if max(sides) <= 32 else 8)
    if any(side % patch for side in sides):
        raise LaminaError(
            f"images of {sides[0]} x {sides[1]} px are no multiple of a patch of {patch} px; give "
            "--image-size or --patch-size"
        )
    recipe = named("mae-small")
    return replace(
        recipe,
        encoder=replace(
            recipe.encoder,
            image_size=sides,
            patch_size=patch,
            in_chans=channels,
            width=options.width,
            depth=options.depth,
            heads=options.width // 32,
            mean="auto",
            std="auto",
        ),
        decoder=replace(recipe.decoder, width=64, depth=2, heads=2),
        masking=replace(recipe.masking, unit_px=patch),
        fusion=replace(recipe.fusion, layers="all", logit_lr_scale=LOGIT_LR_SCALE),
        optim=replace(
            recipe.optim, base_lr=2e-3, warmup_epochs=0.1 * steps * options.batch_size / len(source)
        ),
        data=replace(recipe.data, workers=options.workers),
        train=replace(
            recipe.train,
            max_steps=steps,
            batch_size=options.batch_size,
            log_every_steps=max(1, steps // 20),
            device=options.device,
        ),
    )
