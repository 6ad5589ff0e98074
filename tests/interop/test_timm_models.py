"""Published weights that cannot be fetched are one sentence, wherever they are wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import timm

from lamina.core.errors import LaminaError
from lamina.evaluate.load_classifier import open_classifier
from lamina.interop.load import load_encoder
from lamina.interop.teachers import open_target
from lamina.methods.catalog import recipe
from lamina.targets.options import TargetOptions

NAME = "timm/vit_tiny_patch16_224"


def open_projected(name: str) -> object:
    """A teacher with the head that it was published with."""
    target = TargetOptions(kind="teacher", teacher=name, projected=True)
    return open_target(replace(recipe("milan"), target=target))


@pytest.mark.parametrize("opened", [load_encoder, open_classifier, open_projected])
@pytest.mark.parametrize(
    ("error", "said"),
    [(OSError("no network\nand a second line"), "no network"), (RuntimeError(), "RuntimeError")],
)
def test_weights_that_cannot_be_fetched_are_one_sentence(
    opened: Callable[[str], object], error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = timm.create_model

    def refuse(name: str, *further: Any, **arguments: Any) -> object:
        if arguments.get("pretrained"):
            raise error
        return create(name, *further, **arguments)

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(LaminaError) as raised:
        opened(NAME)
    text = str(raised.value)
    assert text.startswith(f"the weights of vit_tiny_patch16_224 could not be loaded ({said}); ")
    assert "\n" not in text
