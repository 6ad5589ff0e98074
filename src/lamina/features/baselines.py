"""The baselines of a trained encoder, by the same sweep: the untrained network and raw pixels."""

from __future__ import annotations

from lamina.features.options import FeatureOptions
from lamina.features.pooling import BackboneVectors, Extractor, PixelVectors
from lamina.interop.backbone import Backbone
from lamina.interop.load import untrained_like

NO_BASELINES = "no baselines: they were left out"
NO_UNTRAINED = "no untrained baseline: the encoder was handed over without its recipe"


def extractors_with_baselines(
    backbone: Backbone, features: FeatureOptions | None = None
) -> tuple[dict[str, Extractor], tuple[str, ...]]:
    """The trained encoder and, unless they are not wanted, the two baselines; and a note where one of them
    cannot be had.

    The untrained network has the recipe's initialisation: for a run, its own weights before the first step.
    """
    found: dict[str, Extractor] = {"trained": BackboneVectors(backbone, features)}
    if features is not None and not features.baselines:
        return found, (NO_BASELINES,)
    untrained = untrained_like(backbone)
    if untrained is not None:
        found["untrained"] = BackboneVectors(untrained, features)
    found["pixels"] = PixelVectors()
    return found, () if untrained is not None else (NO_UNTRAINED,)
