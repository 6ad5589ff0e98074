"""What a GPU does differently, on torch's "meta" device: mixed precision, and attention without its
matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_LOWER = {"bf16": torch.bfloat16, "fp16": torch.float16}

_PRODUCTS = {
    F.linear,
    F.conv2d,
    F.conv_transpose2d,
    F.scaled_dot_product_attention,
    torch.matmul,
    torch.bmm,
    torch.mm,
    torch.baddbmm,
    torch.einsum,
    Tensor.matmul,
    Tensor.__matmul__,
}
"""Functions that autocast computes in the lower precision."""

_SINGLE = {
    F.layer_norm,
    F.softmax,
    F.log_softmax,
    F.cross_entropy,
    F.mse_loss,
    F.l1_loss,
    F.smooth_l1_loss,
    F.normalize,
    torch.softmax,
    Tensor.softmax,
    Tensor.square,
}
"""Functions that autocast computes in float32, of those that lamina's networks call."""


class GpuMode(TorchFunctionMode):
    """Inside it, "meta" tensors have the types that autocast on a GPU gives, and attention is fused.

    torch has no autocast for "meta", and computes attention there by matrices. Weights are cast once, as
    autocast's cache does, so that each copy is counted once. What is kept for the backward pass is then what
    a GPU keeps; the arithmetic itself is not computed in either case.

    Args:
        precision: fp32, bf16 or fp16, as `TrainOptions.precision`.
    """

    def __init__(self, precision: str) -> None:
        super().__init__()
        self._lower = _LOWER.get(precision)
        self._copies: dict[Tensor, Tensor] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._lower is not None and func in _PRODUCTS:
            args, kwargs = _mapped(self._lowered, args), _mapped(self._lowered, kwargs)
        elif self._lower is not None and func in _SINGLE:
            args, kwargs = _mapped(_single, args), _mapped(_single, kwargs)
        if func is F.scaled_dot_product_attention:
            return _FusedAttention.apply(*args[:3], kwargs.get("attn_mask"))
        return func(*args, **kwargs)

    def _lowered(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            return x
        if not isinstance(x, torch.nn.Parameter):
            return x.to(self._lower)
        if x not in self._copies:
            self._copies[x] = x.to(self._lower)
        return self._copies[x]


class _FusedAttention(torch.autograd.Function):
    """Keeps queries, keys, values, the output and the logarithm of each row's sum (FlashAttention-2: Dao,
    arXiv 2307.08691, algorithm 1)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        *rest, heads, tokens, _ = q.shape
        # In memory by token, then head, as the kernels write it: what joins the heads needs no copy.
        out = q.new_empty(*rest, tokens, heads, v.shape[-1]).transpose(-3, -2)
        sums = q.new_empty(q.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(q, k, v, out, sums, *(() if mask is None else (mask,)))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError("memory is counted by the forward pass alone")


def _single(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _mapped(change: Callable[[Tensor], Tensor], given: Any) -> Any:
    """The same lists, tuples and mappings, their tensors changed."""
    if isinstance(given, Tensor):
        return change(given)
    if isinstance(given, list | tuple):
        return type(given)(_mapped(change, each) for each in given)
    if isinstance(given, dict):
        return {name: _mapped(change, each) for name, each in given.items()}
    return given
