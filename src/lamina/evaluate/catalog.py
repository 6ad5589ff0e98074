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
        "k nearest neighbours on frozen features.",
        "lamina.evaluate.probes:run_knn",
        options=("features", "pools"),
        seeded=False,
    ),
    Protocol(
        "linear",
        "Logistic regression on frozen features.",
        "lamina.evaluate.probes:run_linear",
        options=("features", "pools"),
    ),
    Protocol(
        "linear-mae",
        "MAE's linear probe: a linear classifier on the frozen encoder, trained with LARS on random crops.",
        _TRAINED,
        options=("epochs", "recipe"),
        recipe=_CLASSIFIER,
    ),
    Protocol(
        "attentive",
        "Attentive probe: one learned query attends to the patches of the frozen encoder.",
        _TRAINED,
        options=("epochs", "recipe"),
        recipe=_CLASSIFIER,
    ),
    Protocol(
        "finetune",
        "Fine-tuning: the encoder is trained with a classifier.",
        _TRAINED,
        options=("epochs", "recipe"),
        recipe=_CLASSIFIER,
    ),
    Protocol(
        "fewshot",
        "Linear probes on a few labelled images of each class.",
        "lamina.evaluate.fewshot.protocol:run",
        options=("few_per_class",),
    ),
    Protocol(
        "segment",
        "Semantic segmentation.",
        "lamina.evaluate.segment.protocol:run",
        options=("recipe",),
        recipe="lamina.evaluate.segment.recipes:recipe_from",
        labels="maps",
    ),
    Protocol(
        "detect",
        "Detection and instance segmentation.",
        "lamina.evaluate.detect.protocol:run",
        options=("recipe",),
        recipe="lamina.evaluate.detect.recipes:recipe_from",
        labels="objects",
    ),
    Protocol(
        "robustness",
        "Top-1 error on corrupted images of a classifier: the one that finetune trained, where it is chosen.",
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
