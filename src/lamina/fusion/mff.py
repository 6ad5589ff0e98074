"""Multi-level Feature Fusion: Liu et al., "Improving Pixel-based MIM by Reducing Wasted Modeling
Capability", ICCV 2023, arXiv 2308.00261.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lamina.core.errors import LaminaError
from lamina.core.interfaces import ParamOverride
from lamina.fusion.options import Layers, Pooling, Projection, resolve_layers

MOST_IMAGES = 16
"""How many images of a batch the fusion is measured on."""


class MultiLevelFusion(nn.Module):
    """MFF: project the shallow taps, mix them with the last block by learned weights, then the final norm.

    O = norm(sum_i w_i P_i(x_i)), w = softmax(logits), P = identity on the last tap. The logits start at
    one, so that all taps weigh the same. With pooling "attention" each token attends over its own taps,
    the last tap being the query.

    Args:
        width: D of the encoder.
        depth: number of its blocks.
        layers, projection, pooling, logit_lr_scale, logit_weight_decay: see `FusionOptions`.
        heads: attention heads for pooling "attention"; by default one per 64 channels.
    """

    n_latents = 1
    uses_norm = True

    def __init__(
        self,
        width: int,
        depth: int,
        layers: Layers = "default",
        projection: Projection = "linear",
        pooling: Pooling = "average",
        logit_lr_scale: float = 1.0,
        logit_weight_decay: bool = True,
        heads: int | None = None,
    ) -> None:
        super().__init__()
        self.width = width
        self.layers = resolve_layers(layers, depth)
        self.projections = nn.ModuleList([_projection(projection, width) for _ in self.layers[:-1]])
        self.pool: _Average | _Attention
        if pooling == "average":
            self.pool = _Average(len(self.layers), logit_lr_scale, logit_weight_decay)
        else:
            self.pool = _Attention(width, heads or max(1, width // 64))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, features: list[Float[Tensor, "B T D"]], norm: nn.Module) -> Float[Tensor, "B T D"]:
        """Fuse un-normed block outputs (prefix tokens included), then apply the encoder's final norm."""
        return norm(self.pool(features, self.projections))  # type: ignore[no-any-return]

    @torch.no_grad()
    def measure(self, features: list[Float[Tensor, "B T D"]]) -> dict[str, Float[Tensor, "M"]]:
        """Each tap's softmax weight, and its share of the norms |w_i P_i x_i| (means over tokens)."""
        weights, terms = self.pool.parts(features, self.projections)
        norms = torch.stack([term.float().norm(dim=-1).mean() for term in terms])
        return {"fusion_weights": weights, "fusion_shares": norms / norms.sum()}


class _Average(nn.Module):
    def __init__(self, taps: int, lr_scale: float, weight_decay: bool) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.ones(taps))
        self._override = ParamOverride(lr_scale, weight_decay)

    def optim_overrides(self) -> dict[str, ParamOverride]:
        return {"logits": self._override}

    def forward(self, features: list[Tensor], projections: nn.ModuleList) -> Tensor:
        _, terms = self.parts(features, projections)
        return functools.reduce(torch.add, terms)

    def parts(self, features: list[Tensor], projections: nn.ModuleList) -> tuple[Tensor, list[Tensor]]:
        weights = self.logits.softmax(0)  # in single precision under autocast too
        shallow = [_scaled(p, x, w) for p, x, w in zip(projections, features, weights, strict=False)]
        return weights.detach(), [*shallow, weights[-1] * features[-1]]


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise LaminaError(
                f"{heads} attention heads do not divide the width {width}; set fusion.heads to a divisor"
            )
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def _attend(self, features: list[Tensor], projections: nn.ModuleList) -> tuple[Tensor, Tensor]:
        taps = [p(x) for p, x in zip(projections, features, strict=False)]
        x = torch.stack([*taps, features[-1]], dim=2)  # (B, T, M, D)
        q = self.q(features[-1]).unflatten(-1, (self.heads, -1))  # (B, T, h, d)
        k, v = (f(x).unflatten(-1, (self.heads, -1)) for f in (self.k, self.v))  # (B, T, M, h, d)
        scores = torch.einsum("bthd,btmhd->bthm", q, k) / q.shape[-1] ** 0.5
        return scores.softmax(-1), v

    def forward(self, features: list[Tensor], projections: nn.ModuleList) -> Tensor:
        weights, v = self._attend(features, projections)
        return self.out(torch.einsum("bthm,btmhd->bthd", weights, v).flatten(2))  # type: ignore[no-any-return]

    def parts(self, features: list[Tensor], projections: nn.ModuleList) -> tuple[Tensor, list[Tensor]]:
        weights, v = self._attend(features, projections)
        each = torch.einsum("bthm,btmhd->mbthd", weights, v).flatten(3)
        # The output's bias belongs to no tap.
        return weights.mean((0, 1, 2)), list(F.linear(each, self.out.weight))


def _scaled(projection: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """weight * projection(x). The weight is put on the last matrix: it is far smaller than the activations,
    and nothing of the activations' size has to be kept for the weight's gradient."""
    if isinstance(projection, nn.Identity):
        return weight * x
    layers: list[Any] = list(projection) if isinstance(projection, nn.Sequential) else [projection]
    *before, last = layers
    for layer in before:
        x = layer(x)
    return F.linear(x, weight * last.weight, weight * last.bias)


def _projection(kind: Projection, width: int) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    if kind == "linear":
        return nn.Linear(width, width)
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
