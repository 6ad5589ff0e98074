"""Mean attention distance and entropy of each head, block by block."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from lamina.analyze.measures.attention import watch_attention
from lamina.analyze.models import ModelOnImages
from lamina.analyze.options import AnalysisOptions
from lamina.analyze.output import Result
from lamina.analyze.session import AnalysisSession
from lamina.core.errors import LaminaError


@dataclass(frozen=True)
class LayerAttention:
    """One block: a number for each head, the mean over images and patch queries.

    Distance and entropy are those of a patch's attention to the patches: each row without its prefix tokens,
    over its sum. What the prefix tokens take of the whole row is `prefix_mass`.
    """

    layer: int
    distance: tuple[float, ...]
    """In px of the image that the model is given, between centres of patches."""
    entropy: tuple[float, ...]
    """In nats: 0 for one key, log N for all alike."""
    entropy_share: tuple[float, ...]
    """The entropy over log N, so in [0, 1]."""
    prefix_mass: tuple[float, ...]
    """Share of a patch's attention that class tokens and registers take; 0 where there are none."""


@dataclass(frozen=True)
class ModelAttention:
    """One model, and what uniform attention would give."""

    n_images: int
    image_size: tuple[int, int]
    grid: tuple[int, int]
    patch: tuple[int, int]
    n_prefix: int
    uniform_distance: float
    """Mean distance of two patches, in px, pairs of a patch with itself included."""
    uniform_entropy: float
    """log N."""
    layers: tuple[LayerAttention, ...]


@dataclass(frozen=True)
class AttentionResult(Result):
    """Several models, each on its images."""

    models: Mapping[str, ModelAttention]


def run(session: AnalysisSession, options: AnalysisOptions) -> AttentionResult:
    """The analysis as `lamina.analyze.catalog` lists it."""
    return analyze_attention(session.open_models())


@torch.inference_mode()
def analyze_attention(models: Mapping[str, ModelOnImages]) -> AttentionResult:
    """Mean attention distance and entropy of each head of each model.

    The distance is the receptive field's size of Dosovitskiy et al. ("An Image is Worth 16x16 Words", ICLR
    2021, arXiv 2010.11929, figure 7) and Raghu et al. ("Do Vision Transformers See Like Convolutional Neural
    Networks?", NeurIPS 2021, arXiv 2108.08810): sum over keys of attention times distance, averaged over
    queries and images. Both over patches alone, see `LayerAttention`. One block's attention is in memory at
    a time.

    Raises:
        LaminaError: where there is no model or no image, images differ in size, a head gives patches nothing
            at all, or as `attention_probabilities`.
    """
    if not models:
        raise LaminaError("attention needs at least one model")
    return AttentionResult({name: _model(name, model) for name, model in models.items()})


def distances(grid: tuple[int, int], patch: tuple[int, int]) -> Float64[Tensor, "N N"]:
    """Between the centres of patches, in px; patches row by row."""
    rows, columns = (torch.arange(n, dtype=torch.float64) * px for n, px in zip(grid, patch, strict=True))
    centres = torch.cartesian_prod(rows, columns)
    return torch.cdist(centres, centres, compute_mode="donot_use_mm_for_euclid_dist")


def measure(
    probabilities: Float[Tensor, "B heads T T"], apart: Float[Tensor, "N N"]
) -> Float64[Tensor, "4 heads"]:
    """Sums over images and patch queries, for each head: distance, entropy, prefix mass, and how many
    queries the first two are of.

    A query that gives patches nothing (in floating point) has no distance and no entropy and is left out.
    """
    prefix = probabilities.shape[-1] - apart.shape[0]
    rows = probabilities[:, :, prefix:, prefix:].float()
    mass = rows.sum(dim=-1)
    attending = mass > 0
    rows = rows / mass.masked_fill(~attending, 1.0)[..., None]
    taken = probabilities[:, :, prefix:, :prefix].float().sum(dim=-1)
    distance = torch.einsum("bhqk,qk->bhq", rows, apart.to(rows))
    entropy = torch.special.entr(rows).sum(dim=-1)
    sums = torch.stack([distance, entropy, taken, attending.float()]).cpu().double()
    return sums.sum(dim=(1, 3))


def _model(name: str, model: ModelOnImages) -> ModelAttention:
    encoder = model.backbone.encoder
    depth, n, size = encoder.depth, 0, None
    sums: dict[int, Tensor] = {}
    for batch in model.batches:
        images = batch.images
        if size is not None and images.shape[-2:] != size:
            raise LaminaError(
                f"images of {name} differ in size, and distances are in px; crop them to one size"
            )
        if size is None:
            size = images.shape[-2:]
            grid = encoder.grid_of(images)
            apart = distances(grid, encoder.patch)
            near = apart.to(images.device, torch.float32)

        def receive(layer: int, rows: Tensor, near: Tensor = near) -> None:
            found = measure(rows, near)
            sums[layer] = sums[layer] + found if layer in sums else found

        watch_attention(encoder, images, range(depth), receive)
        n += len(images)
    if size is None:
        raise LaminaError(f"{name} has no images")
    patches = len(apart)
    if patches < 2:
        raise LaminaError(f"{name} makes a single patch of an image, so there is no attention distance")
    layers = tuple(_layer(name, layer, sums[layer], n, patches) for layer in range(depth))
    return ModelAttention(
        n,
        (size[0], size[1]),
        grid,
        encoder.patch,
        encoder.n_prefix,
        float(apart.mean()),
        math.log(patches),
        layers,
    )


def _layer(name: str, layer: int, sums: Float64[Tensor, "4 heads"], n: int, patches: int) -> LayerAttention:
    distance, entropy, taken, attending = sums
    if not bool((attending > 0).all() and sums.isfinite().all()):
        raise LaminaError(
            f"a head of block {layer} of {name} pays patches no attention, or one that is not finite; check "
            "the network's weights"
        )
    nats = entropy / attending
    return LayerAttention(
        layer,
        tuple((distance / attending).tolist()),
        tuple(nats.tolist()),
        tuple((nats / math.log(patches)).tolist()),
        tuple((taken / (n * patches)).tolist()),
    )
