"""All protocols, a row each.

`lamina evaluate all` loops over `PROTOCOLS`: a new protocol is its own file or folder and a row here. Nothing
here imports torch, so that help is quick.
"""

from __future__ import annotations

from lamina.evaluate.protocol import Protocol

_TRAINED = "lamina.evaluate.finetune.protocol:run"
_CLASSIFIER = "lamina.evaluate.finetune.recipes:recipe_from"

PROTOCOLS = (
    Protocol(
        "knn",
        "Classify by k nearest neighbours.",
        "lamina.evaluate.probes:run_knn",
        options=("features", "pools"),
        seeded=False,
    ),
    Protocol(
        "linear",
        "Fit a linear probe on features.",
        "lamina.evaluate.probes:run_linear",
        options=("features", "pools"),
    ),
    Protocol(
        "linear-mae",
        "Train MAE's linear probe: LARS, random crops.",
        _TRAINED,
        options=("epochs", "recipe"),
        recipe=_CLASSIFIER,
    ),
    Protocol(
        "attentive",
        "Train an attentive probe on frozen patch tokens.",
        _TRAINED,
        options=("epochs", "recipe"),
        recipe=_CLASSIFIER,
    ),
    Protocol(
        "finetune",
        "Fine-tune the encoder on labels.",
        _TRAINED,
        options=("epochs", "recipe"),
        recipe=_CLASSIFIER,
    ),
    Protocol(
        "fewshot",
        "Train on few labels: n images per class, or 1 %, 10 %.",
        "lamina.evaluate.fewshot.protocol:run",
        options=("few_per_class",),
    ),
    Protocol(
        "segment",
        "Evaluate semantic segmentation: linear, UperNet, DPT or kNN head.",
        "lamina.evaluate.segment.protocol:run",
        options=("recipe",),
        recipe="lamina.evaluate.segment.recipes:recipe_from",
        labels="maps",
    ),
    Protocol(
        "detect",
        "Evaluate detection and instance masks by ViTDet's Mask R-CNN.",
        "lamina.evaluate.detect.protocol:run",
        options=("recipe",),
        recipe="lamina.evaluate.detect.recipes:recipe_from",
        labels="objects",
    ),
    Protocol(
        "robustness",
        "Test on corrupted images, ImageNet-C, -A, -R, -Sketch.",
        "lamina.evaluate.robustness.protocol:run",
        options=("corrupted_images",),
        after="finetune",
    ),
)
"""In the order of the rows of a comparison's table."""

PROTOCOL_NAMES = tuple(protocol.name for protocol in PROTOCOLS)


def protocol_named(name: str) -> Protocol:
    """The row of that name, which there is."""
    return next(protocol for protocol in PROTOCOLS if protocol.name == name)
