"""Attention that has a second derivative and keeps no attention matrix for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

Grads = tuple[Tensor | None, ...]


class TwiceDifferentiable(TorchFunctionMode):
    """While it is active, `scaled_dot_product_attention` is `attend` wherever it is called.

    Torch's fused kernels have one derivative. Its plain one has all, and keeps several (N, N) matrices of
    each head for them, which at small batches is most of what a second derivative needs. What `attend` does
    not know (dropout, causal and boolean masks, grouped heads) is left to the plain kernel.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Called by torch for every function of its own."""
        given = dict(kwargs or {})
        if func is not F.scaled_dot_product_attention:
            return func(*args, **given)
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        arguments = {**dict(zip(names, args, strict=False)), **given}
        bias, scale = arguments.pop("attn_mask", None), arguments.pop("scale", None)
        q, k, v = (arguments.pop(name) for name in names[:3])
        if any(arguments.values()) or (bias is not None and not bias.is_floating_point()):
            with sdpa_kernel(SDPBackend.MATH):
                return func(*args, **given)
        return attend(q, k, v, bias, scale)


def attend(
    q: Float[Tensor, "*B N d"],
    k: Float[Tensor, "*B M d"],
    v: Float[Tensor, "*B M e"],
    bias: Float[Tensor, "*b N M"] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "*B N e"]:
    """softmax(scale q k' + bias) v, as torch's fused kernel computes it, with a first and a second derivative
    in closed form; both form the attention anew.

    Args:
        bias: of any shape that expands to that of the attention.
        scale: 1 / sqrt(d) by default.
    """
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    if bias is not None:
        bias = bias.expand(*q.shape[:-1], k.shape[-2])
    result: Tensor = _Attention.apply(q, k, v, bias, scale)
    return result


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        ctx.save_for_backward(q, k, v, bias)
        ctx.scale = scale
        return F.scaled_dot_product_attention(q, k, v, bias, scale=scale)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Grads:
        grads = _Gradient.apply(*ctx.saved_tensors, *cotangents, ctx.scale)
        return (*grads, None) if len(grads) == 4 else (*grads, None, None)


class _Gradient(torch.autograd.Function):
    """(dq, dk, dv[, dbias]) of sum(a * attention), and the derivatives of these."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, a: Tensor, scale: float
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(q, k, v, bias, a)
        ctx.scale = scale
        p = _attention(q, k, bias, scale)
        s = _centred(a @ v.mT, p) * p
        grads = (scale * (s @ k), scale * (s.mT @ q), p.mT @ a)
        return grads if bias is None else (*grads, s)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> Grads:
        q, k, v, bias, a = ctx.saved_tensors
        scale = ctx.scale
        to_q, to_k, to_v = cotangents[:3]
        p = _attention(q, k, bias, scale)
        g = _centred(a @ v.mT, p)
        u = torch.cat([to_q, q], -1).mul_(scale) @ torch.cat([k, to_k], -1).mT
        u = _centred(u if bias is None else u.add_(cotangents[3]), p)
        s, of_g = p * g, p * u
        # What a row of the next has in common with p's drops out again, so that it need not be carried.
        of_s = _centred(u.mul_(g).add_(a @ to_v.mT), p).mul_(p)
        of_q = (of_s @ k).add_(s @ to_k).mul_(scale)
        of_k = (of_s.mT @ q).add_(s.mT @ to_q).mul_(scale)
        of_a = (of_g @ v).add_(p @ to_v)
        return of_q, of_k, of_g.mT @ a, None if bias is None else of_s, of_a, None


def _attention(q: Tensor, k: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    scores = (scale * q) @ k.mT
    return (scores if bias is None else scores + bias).softmax(-1)


def _centred(x: Tensor, p: Tensor) -> Tensor:
    """x minus its mean in each row under the shares p; times p, that is what a softmax hands back."""
    return x.sub_((x * p).sum(-1, keepdim=True))
