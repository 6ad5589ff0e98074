"""The epsilon of layer norms goes with the weights through every verb that builds the network again."""

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from helpers.dense_data import toy_data
from helpers.foreign_files import DEPTH, HEADS, SIZES, WIDTH, transformers
from helpers.runs import toy_recipe
from lamina.api import recipe as named_recipe
from lamina.data.sources import ArraySource
from lamina.encoder.networks import set_epsilon
from lamina.evaluate.finetune.adapt import adapt_recipe
from lamina.evaluate.segment.build import build_encoder, plan_segmentation
from lamina.interop.export import export_timm
from lamina.interop.init_weights import init_from_file, with_epsilon_of
from lamina.interop.load import load_encoder, untrained_like
from lamina.interop.load_weights import load_weights_into
from lamina.interop.resizing import at_image_size, copy_weights
from lamina.pretraining import run_pretrain
from lamina.recipes.build import build_task, resolve
from lamina.runs.run import Run, load_task

torch.set_num_threads(1)
EPS = 1e-2
"""So much more than timm's 1e-6 that features differ in the third digit."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A ViTModel of transformers whose configuration says the epsilon."""
    t = transformers()
    torch.manual_seed(0)
    model = t.ViTModel(
        t.ViTConfig(**{**SIZES, "image_size": 32, "patch_size": 8}, layer_norm_eps=EPS),
        add_pooling_layer=False,
    )
    for parameter in model.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape)
    place = tmp_path_factory.mktemp("vit")
    model.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def features(encoder: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Tokens after the final norm."""
    with torch.no_grad():
        return encoder.norm(encoder.eval()(images, (encoder.depth - 1,))[0])


def same(found: nn.Module, backbone, images: torch.Tensor) -> None:
    """Equal to those of the network that was loaded, and not to those at timm's epsilon."""
    expected = features(backbone.encoder, images)
    torch.testing.assert_close(features(found, images), expected, rtol=0, atol=1e-5)
    set_epsilon(found, 1e-6)
    assert (features(found, images) - expected).abs().max() > 1e-3


def test_the_loaded_network_is_that_of_transformers(folder, images):
    backbone = load_encoder(folder)
    normed = (images - backbone.encoder.mean) / backbone.encoder.std
    with torch.no_grad():
        theirs = transformers().ViTModel.from_pretrained(folder).eval()(normed).last_hidden_state
    torch.testing.assert_close(features(backbone.encoder, images), theirs, rtol=0, atol=1e-4)
    assert backbone.origin.recipe.encoder.norm_eps == EPS


def test_fine_tuning_starts_from_it(folder, images):
    backbone = load_encoder(folder)
    source = ArraySource(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), list("abcd"))
    recipe, _ = adapt_recipe(named_recipe("finetune"), backbone, source)
    task = build_task(resolve(replace(recipe, labels=replace(recipe.labels, classes=("a", "b")))))
    copy_weights(task.encoder, backbone)
    same(task.encoder, backbone, images)


def test_segmentation_and_detection_start_from_it(folder, images):
    backbone = load_encoder(folder)
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed (extra: dense)")
    planned = plan_segmentation(backbone, toy_data())
    assert planned.backbone is backbone
    same(
        build_encoder(replace(planned, encoder=replace(planned.encoder, image_size=(32, 32)))),
        backbone,
        images,
    )


def test_another_image_size_and_the_untrained_twin_have_it(folder):
    backbone = load_encoder(folder)
    for other in (at_image_size(backbone, (64, 64)), untrained_like(backbone)):
        assert {m.eps for m in other.encoder.vit.modules() if isinstance(m, nn.LayerNorm)} == {EPS}


def test_pre_training_keeps_it_in_the_run_the_export_and_on_a_resume(folder, images, tmp_path, capsys):
    backbone = load_encoder(folder)
    start = toy_recipe(
        fusion="none", width=WIDTH, depth=DEPTH, heads=HEADS, image_size=(32, 32), patch_size=8
    )
    start = replace(
        start, encoder=replace(start.encoder, mean=(0.5,) * 3, std=(0.5,) * 3, weight_init="timm")
    )
    start = replace(
        start,
        optim=replace(start.optim, base_lr=0.0, warmup_epochs=0.0),
        train=replace(start.train, max_steps=1, batch_size=4, device="cpu"),
        data=replace(start.data, workers=0),
    )
    source = ArraySource(torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8), list("abcd"))
    assert run_pretrain(start, "toys", tmp_path / "run", init=folder, source=source).exit_code == 0
    assert "epsilon of 0.01" in capsys.readouterr().out
    task, kept = load_task(tmp_path / "run")
    assert kept.encoder.norm_eps == EPS
    same(task.encoder, backbone, images)
    for place in (tmp_path / "run", Run(tmp_path / "run").encoder):
        same(load_encoder(place).encoder, backbone, images)
    assert run_pretrain(start, "toys", tmp_path / "run", resume=True, source=source).exit_code == 0
    exported = export_timm(tmp_path / "run", tmp_path / "out")
    assert "eps = 0.01" in str(exported)
    same(load_encoder(tmp_path / "out").encoder, backbone, images)
    again = with_epsilon_of(start.encoder, tmp_path / "run")
    assert again.norm_eps == EPS


def test_another_epsilon_is_said(folder):
    vit = timm.create_model(
        "vit_tiny_patch16_224",
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        img_size=32,
        patch_size=8,
        num_classes=0,
    )
    assert "trained with an epsilon of 0.01, and this network has 1e-06" in str(
        load_weights_into(vit, folder)
    )
    asked = replace(load_encoder(folder).origin.recipe.encoder, norm_eps=1e-5)
    assert with_epsilon_of(asked, folder).norm_eps == 1e-5
    assert init_from_file(load_encoder(folder).encoder, folder).notes == ()
