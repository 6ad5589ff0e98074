"""Published weights: a sentence where they cannot be fetched, and a classifier that teaches another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch

from lamina.core.errors import LaminaError
from lamina.core.frozen import weights_sha256
from lamina.evaluate.load_classifier import open_classifier
from lamina.interop import teachers
from lamina.interop.load import load_encoder
from lamina.interop.teachers import open_target, open_teacher
from lamina.methods.catalog import recipe
from lamina.recipes.recipe import LabelOptions
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


def test_a_published_teacher_sees_images_as_in_its_own_training(monkeypatch: pytest.MonkeyPatch) -> None:
    net = timm.create_model(NAME.removeprefix("timm/")).eval()
    monkeypatch.setattr(teachers, "fetch_published", lambda *asked: net)
    labels = LabelOptions(teacher=NAME, classes=tuple(map(str, range(1000))))
    known, teacher = open_teacher(replace(recipe("deit"), labels=labels))
    assert teacher is not None
    images = torch.arange(3 * 224 * 224).remainder(256).to(torch.uint8).view(1, 3, 224, 224)
    mean, std = (torch.tensor(net.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        torch.testing.assert_close(teacher(images), net((images / 255 - mean) / std))
    # They lie where the weights lie, so that no step copies them to a GPU; the hash is of the weights alone.
    assert dict(teacher.named_buffers()).keys() == {"mean", "std"}
    weights = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    assert known.labels.teacher_sha256 == weights_sha256(weights)
