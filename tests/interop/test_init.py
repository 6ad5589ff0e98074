"""Training that starts from known grids, other channels and other files: what is copied, converted or refused."""

import dataclasses
import shlex

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table

from helpers.foreign_files import SIZES, beit_recipe, saved, transformers
from helpers.runs import shaken, toy_recipe, toy_run
from lamina.cli.entry import main
from lamina.core.errors import LaminaError
from lamina.encoder.build import build_vit, wrap_vit
from lamina.encoder.options import EncoderOptions
from lamina.interop.export import export_timm
from lamina.interop.init_weights import init_from_file
from lamina.interop.load import load_encoder
from lamina.methods.catalog import recipe as named_recipe
from lamina.recipes.build import build_task, resolve
from lamina.runs.data_facts import DataFacts
from lamina.runs.run import Run
from lamina.train import checkpoint

TABLE = "rel_pos_bias.relative_position_bias_table"


def encoder_like(recipe, **changes):
    """Another network of the recipe, before any training."""
    options = dataclasses.replace(recipe.encoder, **changes)
    return wrap_vit(shaken(build_vit(options), seed=9), options)


@pytest.mark.parametrize(
    "spec",
    [
        "run",
        "run@3",
        "run/checkpoints/step-3",
        "run/checkpoints/step-3/model.safetensors",
        "vit.safetensors",
        "vit",
    ],
)
def test_positions_come_from_the_grid_that_lamina_states(tmp_path, spec):
    recipe = toy_recipe(image_size=(16, 64))
    old = toy_run(tmp_path / "run", recipe)[3].encoder.vit.pos_embed
    if "run" not in spec:
        export_timm(tmp_path / "run", tmp_path / spec)
    same, turned = encoder_like(recipe), encoder_like(recipe, image_size=(64, 16))
    assert not init_from_file(same, tmp_path / spec).resampled
    assert torch.equal(same.vit.pos_embed, old)
    loaded = init_from_file(turned, tmp_path / spec)
    expected = resample_abs_pos_embed(old, new_size=[8, 2], old_size=[2, 8], num_prefix_tokens=1)
    torch.testing.assert_close(turned.vit.pos_embed, expected)
    assert "from 2 x 8 patches, to 8 x 2" in str(loaded)
    assert (expected - old).abs().max() > 0.1  # copied row by row they would be others


def test_positions_come_from_the_grid_that_a_configuration_states(tmp_path):
    t = transformers()
    peer = saved(t.ViTModel(t.ViTConfig(**{**SIZES, "image_size": (16, 64)})), tmp_path)
    images = torch.rand(2, 3, 16, 64, generator=torch.Generator().manual_seed(1))
    backbone = load_encoder(tmp_path)
    with torch.no_grad():
        theirs = peer(backbone.encoder.normalise(images)).last_hidden_state
    torch.testing.assert_close(backbone(images).patches, theirs[:, 1:], rtol=1e-5, atol=1e-5)
    turned = encoder_like(backbone.origin.recipe, image_size=(64, 16))
    init_from_file(turned, tmp_path)
    old = peer.embeddings.position_embeddings
    expected = resample_abs_pos_embed(old, new_size=[8, 2], old_size=[2, 8], num_prefix_tokens=1)
    torch.testing.assert_close(turned.vit.pos_embed, expected)


def test_a_grid_that_nothing_states_is_taken_to_be_square_and_said(tmp_path):
    recipe = toy_recipe(image_size=(32, 32))
    source = encoder_like(recipe)
    save_file(source.vit.state_dict(), tmp_path / "vit.safetensors")
    wide = encoder_like(recipe, image_size=(16, 64))
    loaded = init_from_file(wide, tmp_path / "vit.safetensors")
    expected = resample_abs_pos_embed(source.vit.pos_embed, new_size=[2, 8], num_prefix_tokens=1)
    torch.testing.assert_close(wide.vit.pos_embed, expected)
    assert "from 4 x 4 patches, which was taken to be square, to 2 x 8" in str(loaded)


@pytest.mark.parametrize("kind", ["shared", "per_block"])
def test_relative_positions_come_from_the_grid_that_a_run_states(tmp_path, kind):
    recipe = beit_recipe()
    options = dataclasses.replace(recipe.encoder, image_size=(32, 128), relative_positions=kind)
    recipe = resolve(dataclasses.replace(recipe, encoder=options))
    old = toy_run(tmp_path / "run", recipe)[3].encoder.vit.state_dict()
    backbone = load_encoder(tmp_path / "run")
    assert backbone.image_size == (32, 128)
    again, turned = encoder_like(recipe), encoder_like(recipe, image_size=(128, 32))
    init_from_file(again, tmp_path / "run")
    init_from_file(turned, tmp_path / "run")
    tables = [name for name in old if name.endswith("relative_position_bias_table")]
    assert len(tables) == (1 if kind == "shared" else 2)
    for name in tables:
        assert torch.equal(again.vit.state_dict()[name], old[name])
        new = turned.vit.state_dict()[name]
        expected = resize_rel_pos_bias_table(
            old[name], new_window_size=(16, 4), new_bias_shape=new.shape, old_window_size=(4, 16)
        )
        torch.testing.assert_close(new, expected)


def test_a_contrastive_run_starts_another_with_the_encoder_that_it_hands_over(tmp_path):
    recipe = named_recipe("cmae-ti")
    toy = toy_recipe()
    recipe = resolve(
        dataclasses.replace(
            recipe,
            encoder=toy.encoder,
            decoder=dataclasses.replace(recipe.decoder, width=16, depth=1, heads=2),
            fusion=toy.fusion,
        )
    )
    run = Run(tmp_path / "run")
    run.start(recipe, DataFacts("photos/", 10, "0" * 64), None)
    task = build_task(recipe)
    shaken(task.encoder, seed=1)
    checkpoint.write(
        run.checkpoints, 3, checkpoint.Checkpoint(checkpoint.model_tensors(task), {}, {"step": 3})
    )
    encoder = encoder_like(recipe)
    init_from_file(encoder, tmp_path / "run")
    for name, tensor in task.encoder.vit.state_dict().items():
        assert torch.equal(encoder.vit.state_dict()[name], tensor)


def test_heads_that_a_file_states_must_be_those_of_the_network(tmp_path):
    t = transformers()
    saved(t.ViTModel(t.ViTConfig(**SIZES)), tmp_path)  # 3 heads
    options = EncoderOptions("vit_tiny_patch16_224", (32, 32), 8, 3, 48, 3, heads=6)
    encoder = wrap_vit(build_vit(options), options)
    with pytest.raises(
        LaminaError, match=r"has 3 attention heads, this network has 6; set --encoder\.heads 3"
    ):
        init_from_file(encoder, tmp_path)


def kernels(tmp_path, channels, rule, before=3):
    """The kernel of a file for `before` channels, and what an encoder for `channels` makes of it."""
    recipe = toy_recipe(in_chans=before)
    source = encoder_like(recipe).vit
    save_file(source.state_dict(), tmp_path / "vit.safetensors")
    own = encoder_like(recipe, in_chans=channels, mean=None, std=None)
    fresh = own.vit.patch_embed.proj.weight.clone(), own.vit.patch_embed.proj.bias.clone()
    loaded = init_from_file(own, tmp_path / "vit.safetensors", rule)
    assert f"of {before} channel(s) for {channels} by rule '{rule}'" in str(loaded)
    assert torch.equal(own.vit.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)
    return source.patch_embed.proj, own.vit.patch_embed.proj, fresh


@pytest.mark.parametrize(
    ("rule", "channels", "before"), [("repeat", 6, 3), ("repeat", 4, 1), ("mean", 1, 3), ("mean", 5, 3)]
)
def test_images_whose_channels_are_alike_are_embedded_as_before(tmp_path, rule, channels, before):
    old, new, _ = kernels(tmp_path, channels, rule, before)
    grey = torch.rand(2, 1, 32, 48, generator=torch.Generator().manual_seed(0))
    expected = old(grey.expand(-1, before, -1, -1))
    torch.testing.assert_close(new(grey.expand(-1, channels, -1, -1)), expected, rtol=1e-5, atol=1e-5)


def test_channels_are_repeated_in_turn_or_start_anew(tmp_path):
    old, new, _ = kernels(tmp_path, 5, "repeat")
    for c, source in enumerate((0, 1, 2, 0, 1)):
        torch.testing.assert_close(new.weight[:, c], old.weight[:, source] * 3 / 5)
    _, new, fresh = kernels(tmp_path, 2, "new")
    assert torch.equal(new.weight, fresh[0])
    assert torch.equal(new.bias, fresh[1])


def test_other_channels_without_a_rule_are_refused_with_the_rules(tmp_path):
    recipe = toy_recipe()
    save_file(encoder_like(recipe).vit.state_dict(), tmp_path / "vit.safetensors")
    grey = encoder_like(recipe, in_chans=1, mean=None, std=None)
    before = grey.vit.pos_embed.clone()
    with pytest.raises(LaminaError, match=r"--encoder\.init-channels with the rule .*: repeat, mean or new"):
        init_from_file(grey, tmp_path / "vit.safetensors")
    with pytest.raises(LaminaError, match="repeat is for more channels"):
        init_from_file(grey, tmp_path / "vit.safetensors", "repeat")
    assert torch.equal(grey.vit.pos_embed, before)
    same = init_from_file(encoder_like(recipe), tmp_path / "vit.safetensors", "mean")
    assert "init_channels mean has no effect" in str(same)
    mean = load_encoder(
        tmp_path / "vit.safetensors",
        encoder=dataclasses.replace(recipe.encoder, in_chans=1, mean=None, std=None, init_channels="mean"),
    )
    assert mean.encoder.in_chans == 1


def test_a_run_on_other_channels_starts_by_its_rule(tmp_path, capsys):
    recipe = toy_recipe()
    save_file(encoder_like(recipe).vit.state_dict(), tmp_path / "vit.safetensors")
    (tmp_path / "grey").mkdir()
    for i in range(3):
        Image.new("L", (48, 32), 40 * i).save(tmp_path / "grey" / f"{i}.png")
    command = shlex.split(
        f"pretrain {tmp_path / 'grey'} --out {tmp_path / 'run'} --in-chans 1 --max-steps 1 --batch-size 2 "
        "--image-size 32 48 --patch-size 8 --encoder.width 96 --encoder.depth 3 --encoder.heads 3 "
        "--fusion none --workers 0 --device cpu --monitor.images 0 --encoder.init-channels mean"
    )
    assert main(command) == 2
    assert "give --init too" in capsys.readouterr().err
    assert main([*command, "--init", str(tmp_path / "vit.safetensors")]) == 0
    assert "by rule 'mean'" in capsys.readouterr().out


def test_a_timm_model_by_name_is_what_training_starts_from(monkeypatch):
    """The published weights are fetched by timm, here made up."""
    recipe = toy_recipe()
    published = shaken(build_vit(EncoderOptions("vit_tiny_patch16_224", weight_init="timm")), seed=4)
    asked = []

    def create_model(name, **arguments):
        asked.append((name, arguments.get("pretrained")))
        return published if arguments.get("pretrained") else made(name, **arguments)

    made = timm.create_model
    monkeypatch.setattr(timm, "create_model", create_model)
    options = dataclasses.replace(
        recipe.encoder, image_size=(32, 48), patch_size=16, width=None, depth=None, heads=None
    )
    encoder = wrap_vit(build_vit(options), options)
    loaded = init_from_file(encoder, "timm/vit_tiny_patch16_224")
    assert ("vit_tiny_patch16_224", True) in asked
    assert torch.equal(encoder.vit.blocks[3].mlp.fc1.weight, published.blocks[3].mlp.fc1.weight)
    expected = resample_abs_pos_embed(published.pos_embed, new_size=[2, 3], num_prefix_tokens=1)
    torch.testing.assert_close(encoder.vit.pos_embed, expected)
    assert loaded.mean == (0.5, 0.5, 0.5)  # of the published weights
    assert "from 14 x 14 patches, to 2 x 3" in str(loaded)
    with pytest.raises(LaminaError, match="there are no weights 'timm/vit_tiny_nowhere'"):
        init_from_file(encoder, "timm/vit_tiny_nowhere")
