"""Options of a recipe that a protocol does not use: refused where they differ from the recipe's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lamina.core.choices import refuse_unread, unread
from lamina.core.config import differences, flatten, to_mapping
from lamina.core.errors import LaminaError
from lamina.data.options import DECODING_FIELDS, LIMIT_FIELDS

_READING = (*DECODING_FIELDS, *LIMIT_FIELDS)
_CLASSIFIER_GROUPS = ("masking.", "decoder.", "target.", "cmae.", "loss", "method", "data.second_view")
"""Of the recipe of a pre-training, what a classifier has not."""
_VIEW = "data.view_"
_ENCODER_USED = ("image_size", "drop_path", "activation_checkpointing")
_SWITCHED_LATER = ("train.epochs", "optim.warmup_epochs", "head.mask_convs")
"""A recipe that is cut short by max_steps or warmup_steps still says its epochs, and data without masks have
no use for a mask head. Where such fields are given beside what switches them off they are refused as the
options are read (`lamina.core.choices.check_read`)."""
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
    taken_over = ("data.eval_crop_share", *(f"data.{name}" for name in _READING))

    def unused(name: str) -> bool:
        if name.startswith(_CLASSIFIER_GROUPS) or name.startswith(_VIEW):
            return True
        group, _, rest = name.partition(".")
        own = (group == "encoder" and rest not in _ENCODER_USED) or name in taken_over
        return own and now[name] != wanted[name]

    now, wanted = flatten(to_mapping(run)), flatten(to_mapping(asked))
    _refuse(filter(unused, differences(published, asked)), f"{published.name} of this model")
    _check_choices(asked, published)


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
    _check_choices(asked, published)


def _check_choices(asked: Any, published: Any) -> None:
    """Refuse what other options switch off and the recipe of that name has otherwise; what is the
    default of all recipes is fine."""
    idle, default = unread(asked), differences(type(asked)(), asked)
    names = [n for n in differences(published, asked) if n in default and n not in _SWITCHED_LATER]
    refuse_unread({name: idle[name] for name in names if name in idle})


def _refuse(names: Iterable[str], where: str) -> None:
    if found := sorted(names):
        has = "has" if len(found) == 1 else "have"
        raise LaminaError(f"{', '.join(found)} {has} no effect on {where}: leave {_it(found)} out")


def _it(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"
