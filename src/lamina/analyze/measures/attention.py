"""Attention probabilities of a network's blocks, which fused attention never forms.

timm's `AttentionExtract` is not used: its hooks run timm's own forward rather than the encoder's (own channel
statistics, residual decay, blocks up to the last one that is needed), stay on the network, and keep every
layer at once; and where a network was built with fused attention they see nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float, Shaped
from timm.layers.attention import Attention, AttentionRope
from timm.models.beit import Attention as BeitAttention
from timm.models.eva import EvaAttention
from timm.models.vision_transformer import ParallelScalingBlock
from torch import Tensor, nn

from lamina.core.errors import LaminaError
from lamina.encoder.encoder import Encoder
from lamina.interop.backbone import Backbone

Receive = Callable[[int, Float[Tensor, "B heads T T"]], None]
_SOFTMAX = (Attention, EvaAttention, AttentionRope, BeitAttention, ParallelScalingBlock)


def attention_probabilities(
    backbone: Backbone, images: Shaped[Tensor, "B C H W"], layers: Sequence[int]
) -> list[Float[Tensor, "B heads T T"]]:
    """What each token (row) takes of each token (column), by head, in the listed blocks and in that order.

    Rows sum to one. Tokens are the prefix (class tokens, registers), then the patches row by row. These are
    the softmax's values, rotary and relative positions included, before any dropout.

    Raises:
        LaminaError: for layers that are not blocks, attention that is no softmax over tokens (differential
            attention, several attentions in a block), or images that do not fit.
    """
    found: dict[int, Tensor] = {}
    watch_attention(backbone.encoder, images, layers, lambda layer, rows: found.update({layer: rows}))
    return [found[layer] for layer in layers]


def watch_attention(
    encoder: Encoder, images: Shaped[Tensor, "B C H W"], layers: Sequence[int], receive: Receive
) -> None:
    """`receive(layer, probabilities)` is called for each of the listed blocks as it is computed, shallow to
    deep.

    Where `receive` keeps nothing, one block's probabilities are in memory at a time. The network is left
    as it was, whatever happens. Raises as `attention_probabilities`.
    """
    if not layers or not all(0 <= layer < encoder.depth for layer in layers):
        raise LaminaError(f"attention of layers {tuple(layers)}: give blocks within 0..{encoder.depth - 1}")
    modules = {layer: softmax_of(encoder, layer) for layer in sorted(set(layers))}
    with unfused(list(modules.values())):
        handles = []
        try:
            for layer, module in modules.items():
                handles.append(module.attn_drop.register_forward_pre_hook(_hook(layer, receive)))
            encoder(images, [max(layers)])
        finally:
            for handle in handles:
                handle.remove()


def softmax_of(encoder: Encoder, layer: int) -> Any:
    """The module of a block that computes its attention.

    Raises:
        LaminaError: where that is not one softmax over all tokens.
    """
    block = encoder.vit.blocks[layer]
    module = block if isinstance(block, ParallelScalingBlock) else getattr(block, "attn", block)
    if not isinstance(module, _SOFTMAX):
        raise LaminaError(
            f"attention of block {layer} ({type(module).__name__}) is not one softmax over all tokens; take "
            "a network with plain, rotary or relative attention"
        )
    return module


@contextmanager
def unfused(modules: Sequence[Any]) -> Iterator[None]:
    """Attention of these modules in steps rather than fused, for the time of a `with`."""
    before = [module.fused_attn for module in modules]
    try:
        for module in modules:
            module.fused_attn = False
        yield
    finally:
        for module, fused in zip(modules, before, strict=True):
            module.fused_attn = fused


def _hook(layer: int, receive: Receive) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        receive(layer, inputs[0])

    return hook
