"""The fusions as one type, and the fusion that options describe."""

from __future__ import annotations

from lamina.core.errors import LaminaError
from lamina.fusion.last_layer import LastLayer
from lamina.fusion.layer_mix import LayerMix
from lamina.fusion.mff import MultiLevelFusion
from lamina.fusion.options import FusionOptions

Fusion = LastLayer | MultiLevelFusion | LayerMix


def build_fusion(options: FusionOptions, width: int, depth: int, n_latents: int = 1) -> Fusion:
    """The fusion that the options describe, for an encoder of that width and depth.

    `n_latents` is how many latents the decoder reads (`decoder.n_latents`): a mix gives as many, the others
    give one whatever it says.
    """
    if options.kind == "none":
        return LastLayer(depth)
    if options.kind == "mix":
        return LayerMix(width, depth, n_latents)
    return MultiLevelFusion(
        width,
        depth,
        options.layers,
        options.projection,
        options.pooling,
        options.logit_lr_scale,
        options.logit_weight_decay,
        options.heads,
    )


def check_fusion(fusion: Fusion, width: int, depth: int) -> None:
    """Raise where a fusion was built for an encoder of another width or depth."""
    if fusion.layers[-1] != depth - 1:
        raise LaminaError(
            f"the fusion ends with block {fusion.layers[-1]}, the encoder with block {depth - 1}; build the "
            "fusion for this depth"
        )
    if fusion.width not in (None, width):
        raise LaminaError(
            f"the fusion was built for tokens of width {fusion.width}, those of the encoder have {width}; "
            "build the fusion for this width"
        )
