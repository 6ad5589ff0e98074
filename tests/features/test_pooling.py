"""Vectors of any blocks and pools against timm's own intermediates; what is standardised, and how rows are called."""

import pytest
import torch

from helpers.runs import NAMES, shaken, stripes_data, toy_recipe
from lamina.analyze.layer_probes import analyze_depth
from lamina.core.errors import LaminaError
from lamina.evaluate.probes import LEFT_ONE_OUT, evaluate_knn, evaluate_linear, probe_rows
from lamina.features.data import LabelledData, open_labelled
from lamina.features.knn import probe_knn
from lamina.features.options import FeatureOptions, KNNOptions, LinearOptions
from lamina.features.pooling import BackboneVectors, PixelVectors
from lamina.features.table import FeatureKey, FeatureTable
from lamina.interop.backbone import Backbone
from lamina.recipes.build import build_method

ALL = FeatureOptions(("last", "fused", "layers"), layers=(0, 2), pools=("cls", "mean", "cls+mean"))
GAP = "vit_medium_patch16_gap_240"
SMALL = {"width": 24, "heads": 2}


def backbone(name="vit_tiny_patch16_224", fusion="mff", **encoder):
    method = shaken(build_method(toy_recipe(name, fusion, **encoder)))
    return Backbone(method.encoder, method.fusion)


def noisy():
    """Stripes that can hardly be seen."""
    data, generator = stripes_data(), torch.Generator().manual_seed(0)
    for part in (data.train, data.test):
        noise = 60 * torch.randn(part.images.shape, generator=generator)
        part.images = (0.15 * part.images + 100 + noise).clamp(0, 255).to(torch.uint8)
    return data


@pytest.mark.parametrize("name", NAMES)
def test_blocks_and_pools_are_what_timm_gives(name):
    model = backbone(name, **SMALL)
    vit, images = model.encoder.vit, torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    normalised = model.encoder.normalise(images)
    tokens = vit.forward_intermediates(
        normalised,
        indices=[0, 1, 2],
        norm=False,
        output_fmt="NLC",
        intermediates_only=True,
        return_prefix_tokens=vit.cls_token is not None,
    )
    tokens = tokens if vit.cls_token is not None else [(patches, None) for patches in tokens]
    means = {i: patches.mean(1) for i, (patches, _) in enumerate(tokens)}
    found = BackboneVectors(model, ALL)(images)
    names = ["last", "fused", "block 0", "block 1", "block 2", "blocks 0+2"]
    pools = ("cls", "mean", "cls+mean") if vit.cls_token is not None else ("mean",)
    assert list(found) == [(name, pool) for name in names for pool in pools]
    both = torch.cat([means[0], means[2]], dim=1)
    torch.testing.assert_close(found["block 1", "mean"], means[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["blocks 0+2", "mean"], both, rtol=1e-4, atol=1e-5)
    if vit.cls_token is not None:
        cls = {i: prefix[:, 0] for i, (_, prefix) in enumerate(tokens)}
        parts = [cls[0], means[0], cls[2], means[2]]
        torch.testing.assert_close(found["block 1", "cls"], cls[1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            found["blocks 0+2", "cls+mean"], torch.cat(parts, dim=1), rtol=1e-4, atol=1e-5
        )
    every = model.every(images)
    for kind in ("last", "fused"):
        for pool in set(pools) - {"cls+mean"}:
            assert torch.equal(found[kind, pool], every[kind].pooled(pool))


def test_no_block_after_the_last_one_that_is_asked_for_is_run():
    model, run = backbone(fusion="none", **SMALL), []
    for i, block in enumerate(model.encoder.vit.blocks):
        block.register_forward_hook(lambda *_, i=i: run.append(i))
    BackboneVectors(model, FeatureOptions((), layers=(1, 0)))(torch.rand(2, 3, 32, 48))
    assert run == [0, 1]


def test_what_the_encoder_has_not_is_left_out_and_nothing_at_all_is_refused():
    images = torch.rand(2, 3, 32, 48)
    plain, gap = backbone(fusion="none", **SMALL), backbone(GAP, "none", **SMALL)
    assert list(BackboneVectors(plain)(images)) == [("last", "cls"), ("last", "mean")]
    assert list(BackboneVectors(gap, ALL)(images))[:2] == [("last", "mean"), ("block 0", "mean")]
    for model, options, sentence in (
        (plain, FeatureOptions(("fused",)), "no fusion"),
        (gap, FeatureOptions(pools=("cls",)), "no pool 'cls'"),
        (gap, FeatureOptions(pools=("cls", "cls+mean")), r"no pool 'cls' or 'cls\+mean'; take mean"),
        (plain, FeatureOptions(layers=(0, 3)), "layers 0 3 cannot be read: the encoder has blocks 0 to 2"),
    ):
        with pytest.raises(LaminaError, match=sentence):
            BackboneVectors(model, options)
    with pytest.raises(LaminaError, match=r"layers is \(-1,\); each of its numbers must be 0 or more"):
        FeatureOptions(layers=(-1,))


@pytest.mark.parametrize("protocol", ["knn", "linear"])
def test_a_block_is_judged_as_the_analysis_of_depth_judges_it(protocol):
    model, data = backbone(**SMALL), noisy()
    sweep = {"knn": KNNOptions(k=(3, 5)), "linear": LinearOptions(c=(1.0, 100.0))}
    depth = analyze_depth({"m": model}, data, protocols=(protocol,), workers=0, **sweep).models["m"]
    evaluate = {"knn": evaluate_knn, "linear": evaluate_linear}[protocol]
    result = evaluate(model, data, options=sweep[protocol], features=FeatureOptions(("layers",)), workers=0)
    rows = {(row.features, row.pool): row for row in result.rows if row.encoder == "trained"}
    assert len(rows) == 6
    for score in depth.scores:
        if score.place == "block" and score.layer >= 0:
            row = rows[f"block {score.layer}", score.pool]
            assert (row.top1, row.interval, row.validation_top1, row.settings) == (
                (score.top1, score.interval, score.validation_top1, score.settings)
            )
    assert {row.encoder for row in result.rows if row.chosen} == {"trained", "pixels"}
    assert ("trained", "block 2", "mean") in [line[:3] for line in result.table()]


@pytest.mark.parametrize(
    "name", ["block 1 cls", "blocks 0+1 mean", "last cls+mean", "last cls", "fused mean"]
)
def test_parts_of_different_scale_are_standardised_by_the_training_images(name):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    centres = torch.randn(3, 8, generator=generator)
    train, test = (centres[labels] + 1.2 * torch.randn(60, 8, generator=generator) for _ in range(2))
    scale = torch.tensor([1e3] * 2 + [1.0] * 6)  # two channels that would drown the others
    truth = {}
    for change in (1.0, scale):
        *features, pool = name.split(" ")
        key = FeatureKey("trained", " ".join(features), pool)
        parts = [FeatureTable({key: part * change}, torch.arange(60), labels, ()) for part in (train, test)]
        truth[id(change)] = probe_rows(*parts, lambda a, b, c: probe_knn(a, b, c, KNNOptions(k=(5,))))[0][
            0
        ].top1
    first, second = truth.values()
    several = name.startswith("block") or "+" in name
    assert (first == second) == several
    if several:
        mean, deviation = train.mean(0), train.std(0, correction=0)
        unit = [torch.nn.functional.normalize((x - mean) / deviation, dim=1) for x in (test, train)]
        near = (unit[0] @ unit[1].T).topk(5)
        votes = torch.zeros(60, 3).scatter_add_(1, labels[near.indices], (near.values / 0.07).exp())
        assert first == float((votes.argmax(1) == labels).double().mean())


def test_images_that_are_both_parts_are_judged_without_their_own_vote(tmp_path):
    source = noisy().train
    data = LabelledData("mine", source, source)
    result = evaluate_knn(backbone(**SMALL), data, options=KNNOptions(k=(1,), centred=(False,)), workers=0)
    assert (result.n_train, result.n_test, result.data) == (60, 60, "mine, leave-one-out")
    assert LEFT_ONE_OUT in result.notes
    pixels = PixelVectors()(source.images)["pixels", "-"].double()
    near = torch.nn.functional.normalize(pixels, dim=1)
    guesses = (near @ near.T).fill_diagonal_(-1).argmax(1)
    labels = torch.tensor(source.labels)
    expected = float((labels[guesses] == labels).double().mean())
    row = result.chosen("pixels")
    assert 0.2 < row.top1 < 1  # each image's own vote would make it 1
    assert row.validation_top1 == row.top1
    assert abs(row.top1 - expected) < 0.07  # read through a crop
    with pytest.raises(LaminaError, match="one part alone"):
        evaluate_linear(backbone(**SMALL), data, workers=0)


def test_a_folder_as_one_part_and_two_parts_that_are_none(tmp_path):
    from PIL import Image

    for i in range(6):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.effect_noise((48, 32), 60).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    data = open_labelled(tmp_path, leave_one_out=True)
    assert data.one_part
    assert len(data.train) == 6
    assert not open_labelled(tmp_path).one_part
    with pytest.raises(LaminaError, match="two parts"):
        evaluate_knn(backbone(**SMALL), stripes_data(), leave_one_out=True, workers=0)
