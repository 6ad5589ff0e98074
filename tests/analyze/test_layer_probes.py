"""Depth: layers' vectors against hooks, a network that shows and destroys its information at known blocks."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from helpers.runs import NAMES_AND_CHANNELS, shaken, stripes, stripes_data, toy_recipe
from lamina.analyze.layer_probes import analyze_depth, grouped_notes, paired_interval
from lamina.analyze.layer_probes_plot import draw
from lamina.core.errors import LaminaError
from lamina.data.loading.loader import eval_batches
from lamina.data.sources import ArraySource
from lamina.encoder.build import build_vit, wrap_vit
from lamina.encoder.options import EncoderOptions
from lamina.evaluate.probes import evaluate_knn, evaluate_linear
from lamina.features.data import LabelledData
from lamina.features.options import KNNOptions, LinearOptions
from lamina.features.pooling import layer_vectors
from lamina.features.table import FeatureKey
from lamina.fusion.mff import MultiLevelFusion
from lamina.interop.backbone import Backbone, Origin
from lamina.recipes.build import build_method

SMALL = {"width": 24, "heads": 2}
QUICK = {"workers": 0, "knn": KNNOptions(k=(3, 5)), "linear": LinearOptions(c=(1.0, 100.0))}


def backbone(name="vit_tiny_patch16_224", fusion="mff", **encoder):
    method = shaken(build_method(toy_recipe(name, fusion, **encoder)))
    return Backbone(method.encoder, method.fusion)


class Change(nn.Module):
    """A block that is a function of each token."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def with_blocks(*functions):
    """Of a recipe that shows whole images, as the balance of `contrast` asks."""
    recipe = toy_recipe(fusion="none", depth=len(functions), **SMALL)
    whole = replace(recipe, data=replace(recipe.data, eval_crop_share=1.0))
    model = Backbone(shaken(build_method(whole)).encoder, None, Origin("toy", None, whole))
    for i, function in enumerate(functions):
        model.encoder.vit.blocks[i] = Change(function)
    return model


def contrast(n, seed):
    """Grey patches, or as many brighter as darker ones: the mean of a linear embedding cannot tell."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    signs = torch.stack([torch.randperm(24, generator=rng) % 2 * 2 - 1 for _ in range(n)]).view(n, 1, 4, 6)
    patches = (signs * labels.view(n, 1, 1, 1) * 80).repeat_interleave(8, 2).repeat_interleave(8, 3)
    images = 120 + patches + torch.randint(0, 30, (n, 3, 32, 48), generator=rng)
    names = [f"{i}.png" for i in range(n)]
    return ArraySource(images.to(torch.uint8), names, labels.tolist(), ["even", "contrast"])


def noisy():
    """Stripes that can hardly be seen."""
    data, generator = stripes_data(60, 30), torch.Generator().manual_seed(0)
    for part in (data.train, data.test):
        noise = 60 * torch.randn(part.images.shape, generator=generator)
        part.images = (0.15 * part.images + 100 + noise).clamp(0, 255).to(torch.uint8)
    return data


@pytest.mark.parametrize(("name", "channels"), [*NAMES_AND_CHANNELS, ("beit_base_patch16_224", 3)])
def test_vectors_of_layers_are_what_hooks_see(name, channels):
    if name.startswith("beit"):  # takes other decoders
        sizes = {"image_size": (32, 48), "patch_size": 8, "width": 24, "depth": 3, "heads": 2}
        options = EncoderOptions(name=name, hide="replace", **sizes)
        encoder = wrap_vit(build_vit(options), options)
        model = Backbone(shaken(encoder), MultiLevelFusion(24, 3, "all"))
    else:
        model = backbone(name, in_chans=channels, mean=None, std=None)
    encoder, vit, seen = model.encoder, model.encoder.vit, {}
    images = torch.randint(0, 256, (2, channels, 32, 48), dtype=torch.uint8)
    vit.blocks[0].register_forward_pre_hook(lambda _, args: seen.update({"-1": args[0]}))
    for i, block in enumerate(vit.blocks):
        block.register_forward_hook(lambda *args, i=i: seen.update({str(i): args[-1]}))
    expected = {("last", "mean"): vit.forward_features(encoder.normalise(images))}
    found = layer_vectors(model)(images)
    prefix = vit.num_prefix_tokens
    for layer in ("-1", "0", "1", "2"):
        torch.testing.assert_close(found[layer, "mean"], seen[layer][:, prefix:].mean(1))
        if vit.cls_token is not None and layer != "-1":
            torch.testing.assert_close(found[layer, "cls"], seen[layer][:, 0])
    last = expected["last", "mean"][:, prefix:].mean(1)
    torch.testing.assert_close(found["last", "mean"], last, rtol=1e-4, atol=1e-5)
    every = model.every(images)["fused"]
    for pool in model.pools:
        torch.testing.assert_close(found["fused", pool], every.pooled(pool), rtol=1e-4, atol=1e-5)
    assert ("-1", "cls") not in found
    assert {pool for _, pool in found} == set(model.pools)


@pytest.mark.parametrize("protocol", ["knn", "linear"])
def test_the_peak_lies_between_where_information_shows_and_where_it_is_lost(protocol):
    def same(x):
        return x

    model = with_blocks(same, torch.abs, same, torch.zeros_like, same)
    data = LabelledData("contrast", contrast(80, 1), contrast(60, 2))
    found = analyze_depth({"m": model}, data, protocols=(protocol,), **QUICK).models["m"]
    curve = {score.layer: score.top1 for score in found.curve(protocol, "mean")}
    assert curve[1] == curve[2] == 1
    assert all(abs(curve[layer] - 0.5) < 0.2 for layer in (-1, 0, 3, 4))
    peak = found.peaks[protocol]
    assert (peak.best.layer, peak.best.pool, peak.blocks_after) == (1, "mean", 3)
    assert peak.plateau == (1, 2)
    assert peak.gap == 1 - curve[4]
    assert 0 < peak.gap_interval[0] < peak.gap < peak.gap_interval[1] + 0.05
    assert all(score.top1 == 0.5 for score in found.curve(protocol, "cls"))  # it attends to nothing here
    late = with_blocks(same, same, torch.abs)
    peak = analyze_depth({"m": late}, data, protocols=(protocol,), **QUICK).models["m"].peaks[protocol]
    assert (peak.best.layer, peak.blocks_after, peak.gap) == (2, 0, 0.0)
    assert peak.gap_interval == (0.0, 0.0)


def test_noise_that_drowns_the_tokens_ends_the_information():
    generator = torch.Generator().manual_seed(0)

    def drown(x):
        return x + 1e6 * torch.randn(x.shape, generator=generator)

    model = backbone(fusion="none", **SMALL)
    model.encoder.vit.blocks[1] = Change(drown)
    found = analyze_depth({"m": model}, stripes_data(60, 60), **QUICK).models["m"]
    for protocol in ("knn", "linear"):
        accuracy = {score.layer: score.top1 for score in found.curve(protocol, "mean")}
        assert accuracy[0] > 0.9 > 0.6 > max(accuracy[1], accuracy[2])
        assert found.peaks[protocol].best.layer < 1


def test_shuffled_labels_give_chance():
    data = stripes_data(90, 90)
    order = torch.Generator().manual_seed(0)
    for part in (data.train, data.test):
        part.labels = [part.labels[i] for i in torch.randperm(90, generator=order)]
    result = analyze_depth({"m": backbone(**SMALL)}, data, **QUICK)
    assert result.majority == pytest.approx(1 / 3)
    assert all(abs(score.top1 - 1 / 3) < 0.17 for score in result.models["m"].scores)


def test_last_and_fused_are_scored_as_evaluations_score_them():
    model, data = backbone(), noisy()
    found = analyze_depth({"m": model}, data, seed=3, **QUICK).models["m"]
    scores = {(s.protocol, s.place, s.pool): s for s in found.scores if s.place != "block"}
    knn = evaluate_knn(model, data, options=QUICK["knn"], workers=0)
    linear = evaluate_linear(model, data, options=QUICK["linear"], workers=0, seed=3)
    rows = [row for result in (knn, linear) for row in result.rows if row.encoder == "trained"]
    assert len(rows) == len(scores) == 8
    for protocol, row in [(r.protocol, row) for r in (knn, linear) for row in r.rows]:
        if row.encoder == "trained":
            score = scores[protocol, row.features, row.pool]
            assert (score.top1, score.interval, score.validation_top1, score.settings) == (
                (row.top1, row.interval, row.validation_top1, row.settings)
            )


def test_blocks_are_standardised_by_the_training_images():
    model, data = backbone(fusion="none", **SMALL), noisy()
    loud = torch.ones(24)
    loud[3] = 1e4  # without, a cosine would hear this channel alone
    model.encoder.vit.blocks[1] = Change(lambda x: loud * x + loud.flip(0))
    found = analyze_depth({"m": model}, data, protocols=("knn",), **QUICK).models["m"]
    parts = []
    for part in (data.train, data.test):
        batches = eval_batches(part, model.image_size, 3, 64)
        parts.append(
            torch.cat([layer_vectors(model)(batch.images)["1", "mean"] for batch in batches]).double()
        )
    train, test = parts
    mean, deviation = train.mean(0), train.std(0, correction=0)
    unit = [torch.nn.functional.normalize((part - mean) / deviation, dim=1) for part in (train, test)]
    truth = [torch.tensor(part.labels) for part in (data.train, data.test)]
    score = found.curve("knn", "mean")[2]
    similarity = unit[1] @ unit[0].T
    near = similarity.topk(score.settings["k"], dim=1)
    votes = torch.zeros(30, 3).double()
    if score.settings["centred"]:
        assert (unit[0].mean(0).abs() < 0.1).all()
    votes.scatter_add_(1, truth[0][near.indices], (near.values / 0.07).exp())
    assert score.top1 == float((votes.argmax(1) == truth[1]).double().mean())


def test_paired_interval_is_that_of_the_pairs_with_half_a_pair_added_to_each_cell():
    for better, worse, n in ((9, 2, 40), (0, 0, 25), (5, 5, 30)):
        values = np.array([1.0, -1.0, 0.0])
        weights = np.array([better + 0.5, worse + 0.5, n - better - worse + 1.0])
        mean = np.average(values, weights=weights)
        variance = np.average((values - mean) ** 2, weights=weights)
        half = 1.959963984540054 * (variance / (n + 2)) ** 0.5
        assert paired_interval(better, worse, n) == pytest.approx((mean - half, mean + half))
    assert paired_interval(3, 0, 3)[1] == 1  # 0.6 + 0.58
    assert paired_interval(0, 3, 3)[0] == -1


def test_models_of_other_depths_channels_and_pools_side_by_side(tmp_path):
    models = {
        "plain": backbone(fusion="none", depth=4, **SMALL),
        "registers": backbone("vit_medium_patch16_reg4_gap_256", **SMALL),
        "grey": backbone("eva02_tiny_patch14_224", in_chans=1, width=24, heads=2, mean=(0.5,), std=(0.3,)),
    }
    told = []
    options = {**QUICK, "images": 24, "seed": 5}
    result = analyze_depth(models, stripes_data(), **options, progress=lambda *said: told.append(said))
    again = analyze_depth(models, stripes_data(), **options, batch_size=7)
    assert json.dumps(result.to_json()) == json.dumps(again.to_json())
    assert {model.n_train for model in result.models.values()} == {24}
    assert [len(model.scores) for model in result.models.values()] == [22, 12, 22]
    assert told[-1] == ("grey: probes", 22, 22)
    assert result.to_json()["models"]["plain"]["peaks"]["knn"]["blocks_after"] in range(5)
    draw(result).savefig(tmp_path / "depth.svg")
    drawn = (tmp_path / "depth.svg").read_text()
    for text in ("registers", "24 test images", "depth as a share", "fused"):
        assert text in drawn
    assert draw(replace(result, models={"plain": result.models["plain"]})).axes[0].get_xlabel() == (
        "after block (in: embedded input)"
    )


def test_a_plateau_is_what_lies_within_one_standard_error_on_the_training_part():
    model = Backbone(shaken(build_method(toy_recipe(fusion="none", depth=4, **SMALL)), seed=4).encoder)
    found = analyze_depth({"m": model}, noisy(), **QUICK).models["m"]
    for protocol, n in (("knn", 60), ("linear", 15)):  # linear: a quarter of each class
        peak = found.peaks[protocol]
        top = peak.best.validation_top1
        assert 0.3 < top < 1
        curve = found.curve(protocol, peak.best.pool)
        error = np.sqrt(top * (1 - top) / n)
        near = [score.layer for score in curve if top - score.validation_top1 <= error]
        assert peak.plateau == (min(near), max(near))
        blocks = [score for score in found.scores if (score.protocol, score.place) == (protocol, "block")]
        assert top == max(score.validation_top1 for score in blocks)
        assert peak.best.top1 < max(score.top1 for score in blocks)  # the test part had no say


def test_the_largest_class_is_that_of_the_training_images():
    data = stripes_data(60, 30)
    data.train.labels = [2] + [1] * 30 + [0] * 29
    data.test.labels = [2] * 20 + [1] * 4 + [0] * 6
    result = analyze_depth({"m": backbone(**SMALL)}, data, protocols=("knn",), **QUICK)
    assert result.majority == pytest.approx(4 / 30)


def test_each_image_passes_each_encoder_once():
    model, passes = backbone(**SMALL), []
    model.encoder.vit.blocks[0].register_forward_hook(lambda _, args, out: passes.append(len(out)))
    analyze_depth({"m": model}, stripes_data(30, 12), **QUICK)
    assert sum(passes) == 42


def test_what_cannot_be_probed_is_refused_with_a_sentence(tmp_path):
    model = backbone(**SMALL)
    for i in range(2):
        (tmp_path / f"{i}.png").write_bytes(b"")
    with pytest.raises(LaminaError, match="no classes"):
        analyze_depth({"m": model}, tmp_path, **QUICK)
    with pytest.raises(LaminaError, match="1 images of each part are too few"):
        analyze_depth({"m": model}, stripes_data(), images=1, **QUICK)
    with pytest.raises(LaminaError, match="at least one model"):
        analyze_depth({}, stripes_data(), **QUICK)
    with pytest.raises(LaminaError, match="knn, linear or both"):
        analyze_depth({"m": model}, stripes_data(), protocols=(), **QUICK)
    broken = backbone(fusion="none", **SMALL)
    broken.encoder.vit.blocks[1] = Change(lambda x: x / 0)
    with pytest.raises(LaminaError, match="not finite"):
        analyze_depth({"m": broken}, LabelledData("s", stripes(9, 1), stripes(9, 2)), **QUICK)


def test_a_note_on_many_kinds_of_features_is_said_once():
    keys = [FeatureKey("", str(layer), "mean") for layer in (-1, 0, 1, 2)] + [FeatureKey("", "fused", "cls")]
    every = [("knn", key, "an edge") for key in keys]
    one = ("linear", keys[0], "another")
    assert list(grouped_notes([*every, one, ("linear", keys[-1], "another")], 5)) == [
        "knn, all of 5 kinds of features: an edge",
        "linear, input (mean), fused (cls): another",
    ]
    assert list(grouped_notes(every, 9)) == ["knn, 5 of 9 kinds of features: an edge"]
