"""Options of a recipe that a protocol does not use: refused where they differ from the recipe's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lamina.data.options import DECODING_FIELDS, LIMIT_FIELDS
from lamina.errors import LaminaError
from lamina.fusion import FusionOptions
from lamina.options import differences, flatten, to_mapping

_READING = (*DECODING_FIELDS, *LIMIT_FIELDS)
_CLASSIFIER_GROUPS = ("masking.", "decoder.", "target.", "cmae.", "loss", "method", "data.second_view")
"""Of the recipe of a pre-training, what a classifier has not."""
_VIEW = "data.view_"
_ENCODER_USED = ("image_size", "drop_path", "activation_checkpointing")
_FROZEN_UNUSED = ("encoder.drop_path", "encoder.activation_checkpointing", "optim.layer_decay")
_DENSE_DATA_USED = (
    "jitter",
    "workers",
    "prefetch_batches",
    "worker_timeout_seconds",
    "bad_files_max_share",
    "bad_files_min",
    *_READING,
)


def check_classifier_options(asked: Any, published: Any, run: Any) -> None:
    """Refuse options of a training on labels that change nothing.

    The network, its normalisation and how its images are read are the model's: another value than the model's
    is refused, the model's own is not (as in the recipe.yaml of an earlier training).

    Args:
        asked: the recipe as it was given.
        published: the named recipe that it started from.
        run: the recipe that is run with this model.
    """
    frozen = asked.supervised.frozen
    taken_over = ("data.eval_crop_share", *(f"data.{name}" for name in _READING))

    def unused(name: str) -> bool:
        if name.startswith(_CLASSIFIER_GROUPS) or name.startswith(_VIEW):
            return True
        if frozen and name in _FROZEN_UNUSED:
            return True
        group, _, rest = name.partition(".")
        if group == "fusion" and not _fusion_reads(rest, asked.fusion):
            return True
        own = (group == "encoder" and rest not in _ENCODER_USED) or name in taken_over
        return own and now[name] != wanted[name]

    now, wanted = flatten(to_mapping(run)), flatten(to_mapping(asked))
    _refuse(filter(unused, differences(published, asked)), f"{published.name} of this model")


def check_dense_options(asked: Any, published: Any, run: Any) -> None:
    """Refuse options of reading images that segmentation or detection does not use (it cuts windows of its
    own); the arguments are those of `check_classifier_options`."""

    def unused(name: str) -> bool:
        group, _, rest = name.partition(".")
        if group == "data" and rest in _READING:
            return bool(now[name] != wanted[name])
        return group == "data" and rest not in _DENSE_DATA_USED

    now, wanted = flatten(to_mapping(run)), flatten(to_mapping(asked))
    _refuse(filter(unused, differences(published, asked)), published.name)


def _fusion_reads(name: str, fusion: FusionOptions) -> bool:
    """Whether the chosen fusion has a use for that field."""
    if name == "kind":
        return True
    if name == "heads" or name.startswith("logit_"):
        return fusion.kind == "mff" and fusion.pooling == ("attention" if name == "heads" else "average")
    return fusion.kind == "mff"


def _refuse(names: Iterable[str], where: str) -> None:
    if found := sorted(names):
        has = "has" if len(found) == 1 else "have"
        raise LaminaError(f"{', '.join(found)} {has} no effect on {where}: leave {_it(found)} out")


def _it(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"
