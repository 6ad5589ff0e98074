"""Recipes: fair pairs, published numbers, and a lossless way to YAML and back."""

import math

import pytest
import torch
import yaml

from lamina.cli.info import recipe_rows
from lamina.core.config import differences, merge, to_mapping
from lamina.core.errors import LaminaError
from lamina.methods.catalog import METHODS, recipe, recipes
from lamina.recipes.build import build_method, resolve
from lamina.recipes.recipe import Recipe
from lamina.train.options import plan_run
from lamina.train.schedule import learning_rate

ALL = list(recipes())
SMALL = ["mae-small", "pixmim-small", "simmim-small", "crossmae-small", "demo"]


PUBLISHED = [
    f"{name}-{size}" for name in [method.name for method in METHODS] for size in ("ti", "s", "b", "l", "h")
]


@pytest.mark.parametrize("name", ALL)
def test_a_pair_differs_in_fusion_alone(name):
    """A published recipe is the method of its paper: of those, CrossMAE's alone reads more than the last layer."""
    chosen = recipe(name)
    own = "mix" if "crossmae" in name else "none" if name in PUBLISHED else "mff"
    if name.startswith("fast"):  # the name says which of the pair it is
        own = "mff" if "mff" in name else "none"
    assert chosen.fusion.kind == own
    for kind in ("none", "mff"):
        other = merge(chosen, {"fusion": {"kind": kind}})
        assert list(differences(chosen, other)) == ["fusion.kind"] * (kind != own)


def test_the_help_says_which_recipes_start_with_fusion():
    """In the sentence that `lamina recipes` shows of each."""
    says = {row[0]: row[-1] for row in recipe_rows()}
    assert set(PUBLISHED) < set(ALL)
    for name in ALL:
        fused = "mff" in name if name.startswith("fast") else name not in PUBLISHED
        assert ("MFF" in says[name]) == fused, says[name]


@pytest.mark.parametrize("name", SMALL)
def test_a_pair_starts_from_the_same_weights(name):
    fused = resolve(recipe(name))
    states = [build_method(r).state_dict() for r in (fused, merge(fused, {"fusion": {"kind": "none"}}))]
    assert [k for k in states[0] if k not in states[1]] == [k for k in states[0] if k.startswith("fusion.")]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[1])


@pytest.mark.parametrize("name", ALL)
def test_yaml_and_back(name):
    resolved = resolve(recipe(name))
    text = yaml.safe_dump(to_mapping(resolved))
    assert merge(Recipe(), yaml.safe_load(text)) == resolved
    assert resolve(resolved) == resolved


def test_building_is_a_function_of_the_seed():
    resolved = resolve(recipe("demo"))
    before = torch.random.get_rng_state()
    first, again = build_method(resolved).state_dict(), build_method(resolved).state_dict()
    other = build_method(merge(resolved, {"train": {"seed": 1}})).state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(
        first["encoder.vit.blocks.0.attn.qkv.weight"], other["encoder.vit.blocks.0.attn.qkv.weight"]
    )


def test_initialisation_is_maes():
    state = build_method(resolve(recipe("mae-small"))).state_dict()
    for name in (
        "encoder.vit.blocks.3.mlp.fc1.weight",
        "decoder.embed.weight",
        "fusion.projections.0.weight",
    ):
        weight = state[name]
        bound = math.sqrt(6 / sum(weight.shape))
        assert float(weight.abs().max()) <= bound
        assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
    patch = state["encoder.vit.patch_embed.proj.weight"]
    assert float(patch.abs().max()) <= math.sqrt(6 / (patch.shape[0] + patch[0].numel()))
    for token in ("encoder.vit.cls_token", "decoder.mask_token"):
        assert 0.01 < float(state[token].std()) < 0.03
    assert not state["encoder.vit.blocks.0.attn.qkv.bias"].any()


def test_published_rates():
    """MAE: 1.5e-4 x 4096 / 256. SimMIM: 1e-4 x 2048 / 512, a tenth of it after 700 of 800 epochs."""
    for name, n_epochs, peak in (("mae-b", 40, 2.4e-3), ("simmim-b", 10, 4e-4)):
        chosen = recipe(name)
        plan = plan_run(chosen.train, 1_281_167)
        at = {
            epoch: learning_rate(
                round(epoch * plan.steps_per_epoch),
                total_steps=plan.total_steps,
                steps_per_epoch=plan.steps_per_epoch,
                batch_size=chosen.train.batch_size,
                options=chosen.optim,
            )
            for epoch in (n_epochs, 699, 701)
        }
        assert at[n_epochs] == pytest.approx(peak, rel=1e-3)
        if name == "simmim-b":
            assert at[701] == pytest.approx(0.1 * at[699])


def test_published_simmim_hides_30_of_49_units():
    method = build_method(resolve(merge(recipe("simmim-ti"), {"encoder": {"depth": 6}})))
    assert 196 - method.masking.n_visible(method.encoder.grid) == 120


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"fusion": {"kindd": "mff"}}, "did you mean fusion.kind"),
        ({"fusion": "mff"}, "group of options"),
        ({"train": {"epochs": "ten"}}, "train.epochs cannot be 'ten'; it is a number"),
        ({"train": {"batch_size": 2.5}}, "whole number"),
        ({"fusion": {"layers": [0, "x"]}}, "fusion.layers cannot be"),
        ({"data": {"crop": "squash"}}, "'random_resized' or"),
    ],
)
def test_wrong_values_get_one_line(change, says):
    with pytest.raises(LaminaError, match=says) as error:
        merge(recipe("mae"), change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"encoder": {"name": "resnet50"}}, "timm cannot build|not a timm"),
        ({"encoder": {"name": "nonesuch"}}, "no model named"),
        ({"encoder": {"image_size": [224, 224, 3]}}, "height and width"),
        ({"encoder": {"mean": [0.5]}}, "1 numbers for 3 channels"),
        ({"encoder": {"heads": 5}}, "timm cannot build"),
        ({"fusion": {"kind": "mff", "layers": [0, 3]}}, "the last of them"),
        ({"decoder": {"kind": "linear"}}, "LinearDecoder reads all"),
        ({"encoder": {"image_size": [100]}}, "patch"),
    ],
)
def test_recipes_that_cannot_be_built(change, says):
    with pytest.raises(LaminaError, match=says):
        build_method(resolve(merge(recipe("mae-ti"), change)))
