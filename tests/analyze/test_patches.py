"""Patches and retrieval in closed form: planted groups, an outlier, directions, duplicates and classes."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from helpers.runs import NAMES, shaken, toy_recipe
from lamina.analyze import patches_plot, retrieval_plot
from lamina.analyze.measures.attention import attention_probabilities
from lamina.analyze.measures.patch_maps import (
    colours,
    cosines_to,
    foreground,
    mean_cosine,
    norm_outliers,
    principal,
    same_place,
)
from lamina.analyze.models import Images, ModelOnImages
from lamina.analyze.patches import analyze_patches
from lamina.analyze.retrieval import UnitVectors, analyze_retrieval, pixel_units, score_rankings
from lamina.analyze.shown_images import chosen_keys, picture_of
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.plotting import figure_text
from lamina.data.sources import ArraySource
from lamina.encoder.build import build_vit, wrap_vit
from lamina.encoder.options import EncoderOptions
from lamina.interop.backbone import Backbone
from lamina.recipes.build import build_method

KINDS = [*((name, 3) for name in NAMES), (NAMES[0], 1), (NAMES[0], 4), ("beit_base_patch16_224", 3)]


def backbone(name="vit_tiny_patch16_224", channels=3, size=(32, 48)):
    if name.startswith("beit"):
        sizes = {"image_size": size, "patch_size": 8, "width": 24, "depth": 3, "heads": 2}
        options = EncoderOptions(name=name, hide="replace", **sizes)
        return Backbone(shaken(wrap_vit(build_vit(options), options)))
    recipe = toy_recipe(name, image_size=size, in_chans=channels, mean=None, std=None)
    method = shaken(build_method(recipe))
    return Backbone(method.encoder, method.fusion)


class Planted(nn.Module):
    """A last block that gives the patches of every image the same tokens."""

    def __init__(self, tokens, prefix):
        super().__init__()
        self.tokens, self.prefix = tokens, prefix

    def forward(self, x, *positions):
        return torch.cat([x[:, : self.prefix], self.tokens.expand(len(x), -1, -1)], 1)


class Marked(nn.Module):
    """A block after which the first channel is large at one token and nothing elsewhere."""

    def __init__(self, token):
        super().__init__()
        self.token = token

    def forward(self, x):
        x = x.clone()
        x[:, :, 0] = 0
        x[:, self.token, 0] = 100
        return x


def planted(tokens, name=NAMES[0]):
    """4 x 6 patches of width 96, whose final norm leaves directions of mean 0 as they are."""
    model = backbone(name)
    model.encoder.vit.blocks[-1] = Planted(tokens, model.encoder.n_prefix)
    nn.init.ones_(model.encoder.vit.norm.weight)
    nn.init.zeros_(model.encoder.vit.norm.bias)
    return model


def images_of(n=8, channels=3, size=(32, 48), seed=0):
    pixels = torch.rand(n, channels, *size, generator=torch.Generator().manual_seed(seed))
    return (pixels * 255).to(torch.uint8)


def subject(model, images=None, labels=None, batch_size=3):
    images = images_of(channels=model.encoder.in_chans) if images is None else images
    classes = [f"class {i}" for i in range(max(labels) + 1)] if labels else ()
    source = ArraySource(images, [f"{i}.png" for i in range(len(images))], labels, classes)
    return ModelOnImages(model, Images(source, model.image_size, model.encoder.in_chans, batch_size))


def direction(i, width=96):
    """Orthogonal to others, of mean 0, so that a layer norm only scales it."""
    token = torch.zeros(width)
    token[2 * i], token[2 * i + 1] = 1.0, -1.0
    return token


def test_components_are_those_of_the_singular_values_with_the_sign_of_the_largest_loading():
    rows = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 8)
    found = principal(rows)
    centred = (rows.double() - rows.double().mean(0)).numpy()
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(vt[np.arange(3), np.abs(vt[:3]).argmax(1)])
    np.testing.assert_allclose(found.values.numpy(), (u * s)[:, :3] * signs, atol=1e-9)
    np.testing.assert_allclose(found.share.numpy(), s[:3] ** 2 / (s**2).sum(), rtol=1e-9)
    flipped = principal(-rows)
    torch.testing.assert_close(flipped.values, -found.values)  # the axes keep their sign, the data do not
    one_dimensional = principal(torch.arange(9.0)[:, None] * torch.ones(1, 5))
    assert one_dimensional.share.tolist() == pytest.approx([1, 0, 0])
    assert not one_dimensional.values[:, 1:].any()


def test_colours_are_cut_and_stretched_within_each_image():
    values = torch.arange(101.0, dtype=torch.float64)[None, :, None] * torch.tensor([1.0, -2.0, 0.0])
    found = colours(torch.cat([values, 1000 + 50 * values]))
    expected = ((torch.arange(101.0) - 1) / 98).clamp(0, 1).double()
    torch.testing.assert_close(found[0, :, 0], expected)
    torch.testing.assert_close(found[0, :, 1], expected.flip(0))
    assert (found[0, :, 2] == 0.5).all()
    torch.testing.assert_close(found[1], found[0])
    inside = torch.zeros(2, 101, dtype=torch.bool)
    inside[0, :50] = True
    part = colours(values.repeat(2, 1, 1), inside)
    assert not part[0, 50:].any()
    assert not part[1].any()
    assert part[0, 49, 0] == 1


def test_the_foreground_is_the_side_that_keeps_off_the_border():
    first = torch.zeros(2, 30, dtype=torch.float64)
    disc = torch.zeros(5, 6, dtype=torch.bool)
    disc[1:4, 2:4] = True
    for sign in (1, -1):
        assert torch.equal(foreground(first + sign * disc.flatten(), (5, 6)), disc.flatten().expand(2, -1))
    assert foreground(first, (5, 6)).all()


def test_one_token_of_a_hundred_times_the_norm_is_the_one_outlier():
    norms = 10 + torch.rand(20, 24, generator=torch.Generator().manual_seed(0)).double()
    assert norm_outliers(norms).outliers == 0
    norms[3, 5] *= 100
    found = norm_outliers(norms, (1.5,))
    values = norms.flatten()
    median = values.quantile(0.5).item()
    deviation = (values - median).abs().quantile(0.5).item()
    assert found.threshold == pytest.approx(median + 6 * deviation / 0.6744897501960817)
    assert (found.outliers, found.n_images, found.n_tokens) == (1, 20, 480)
    assert (found.share, found.images_with, found.prefix) == (1 / 480, 1 / 20, (1.5,))
    alike = torch.full((4, 5), 7.0).double()
    alike[0, 0] += 1e-6
    assert norm_outliers(alike).outliers == 0


def test_cosines_in_closed_form():
    tokens = torch.stack([direction(0), direction(0) + direction(1), 5 * direction(1), -direction(0)])[None]
    assert cosines_to(tokens, 0)[0].tolist() == pytest.approx([1, 0.5**0.5, 0, -1])
    pairs = [0.5**0.5, 0, -1, 0.5**0.5, -(0.5**0.5), 0]
    assert mean_cosine(tokens).item() == pytest.approx(sum(pairs) / 6)
    assert mean_cosine(tokens[:, :1]).item() == pytest.approx(0)


def test_the_same_place_on_another_grid():
    assert same_place((2, 3), (4, 6), (4, 6)) == (2, 3)
    assert same_place((2, 3), (4, 6), (2, 2)) == (1, 1)
    assert same_place((0, 5), (4, 6), (8, 12)) == (1, 11)
    with pytest.raises(LaminaError, match="outside of the grid of 4 x 6"):
        same_place((4, 0), (4, 6), (4, 6))


@pytest.mark.parametrize("name", NAMES[:3])
def test_planted_groups_have_their_own_colours(name):
    group = torch.tensor([0] * 11 + [1] * 7 + [2] * 4 + [3] * 2)[
        torch.randperm(24, generator=torch.Generator().manual_seed(1))
    ]
    tokens = torch.stack([direction(i) for i in range(4)])[group]
    model = planted(tokens, name)
    found = analyze_patches({"m": subject(model)}, images=2, at=(1, 2)).models["m"]
    assert sum(found.explained) == pytest.approx(1, abs=1e-6)  # four groups span three dimensions
    for image in found.shown:
        hues = np.stack([image.red, image.green, image.blue], -1).reshape(24, 3)
        per_group = [np.unique(hues[group == i].round(6), axis=0) for i in range(4)]
        assert [len(own) for own in per_group] == [1] * 4
        apart = [np.abs(a - b).max() for i, a in enumerate(per_group) for b in per_group[:i]]
        assert min(apart) > 0.2
        cosines = np.asarray(image.cosines).ravel()
        np.testing.assert_allclose(cosines, group == group[1 * 6 + 2], atol=1e-6)
    assert found.mean_cosine == pytest.approx((11 * 10 + 7 * 6 + 4 * 3 + 2) / (24 * 23), abs=1e-6)


def test_norms_are_taken_before_the_final_norm_and_an_outlier_is_marked(tmp_path):
    tokens = torch.stack([(1 + i / 100) * direction(i % 8) for i in range(24)])
    tokens[7] *= 100
    found = analyze_patches({"m": subject(planted(tokens))}, images=2)
    model = found.models["m"]
    expected = (tokens.norm(dim=1)).reshape(4, 6).numpy()
    np.testing.assert_allclose(model.shown[0].norms, expected, rtol=1e-5)
    assert (model.norms.outliers, model.norms.n_images, model.norms.images_with) == (8, 8, 1.0)
    assert [image.outliers for image in model.shown] == [1, 1]
    assert len(model.norms.prefix) == 1
    assert "not one softmax" in model.without_attention  # of the planted block
    assert model.shown[0].attention is None
    patches_plot.draw(found).savefig(tmp_path / "patches.svg")
    assert "softmax" in (tmp_path / "patches.svg").read_text()


@pytest.mark.parametrize(("name", "channels"), KINDS)
def test_maps_of_every_encoder_against_a_plain_forward(name, channels):
    model = backbone(name, channels)
    images = images_of(channels=channels)
    found = analyze_patches({"m": subject(model, images, batch_size=5)}, images=3, at=(3, 1)).models["m"]
    last = {}
    vit = model.encoder.vit
    vit.blocks[-1].register_forward_hook(lambda *args: last.update(out=args[-1]))
    reading = Images(subject(model, images).batches.source, model.image_size, channels, 8)
    (batch,) = reading
    with torch.no_grad():
        normed = vit.forward_features(model.encoder.normalise(batch.images))[:, vit.num_prefix_tokens :]
    norms = last["out"][:, vit.num_prefix_tokens :].norm(dim=-1)
    keys = [image.key for image in found.shown]
    assert keys == list(chosen_keys(range(8), 3, 0))
    assert [image.name for image in found.shown] == [f"{key}.png" for key in keys]
    assert found.grid == (4, 6)
    chosen = normed[keys]
    np.testing.assert_allclose([np.ravel(i.norms) for i in found.shown], norms[keys].detach(), rtol=1e-4)
    cosines = torch.cosine_similarity(chosen, chosen[:, 3 * 6 + 1, None], dim=-1)
    np.testing.assert_allclose([np.ravel(i.cosines) for i in found.shown], cosines, atol=1e-4)
    assert all(np.argmax(i.cosines) == 19 and np.max(i.cosines) == pytest.approx(1) for i in found.shown)
    rows = chosen.flatten(0, 1).double().numpy()
    _, s, _ = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    assert found.explained == pytest.approx(tuple(s[:3] ** 2 / (s**2).sum()), rel=1e-3)
    assert found.norms.median == pytest.approx(float(norms.flatten().quantile(0.5)), rel=1e-4)
    assert found.norms.n_tokens == 8 * 24
    expected = batch.images[keys[0]][:3].permute(1, 2, 0).expand(-1, -1, 3)
    assert np.array_equal(found.shown[0].picture, expected.numpy())


@pytest.mark.parametrize(("name", "channels"), KINDS)
def test_class_attention_is_the_mean_over_heads_of_its_row(name, channels):
    model = backbone(name, channels)
    looked_at = subject(model)
    found = analyze_patches({"m": looked_at}, images=2).models["m"]
    if model.encoder.n_class == 0:
        assert found.without_attention == "no class token"
        assert [image.attention for image in found.shown] == [None, None]
        return
    assert found.without_attention is None
    stored = torch.cat([batch.images for batch in looked_at.batches])
    images = stored[[image.key for image in found.shown]]
    rows = attention_probabilities(model, images, (2,))[0].double().mean(1)[:, 0]
    prefix = model.encoder.n_prefix
    for image, row in zip(found.shown, rows, strict=True):
        patches = row[prefix:].numpy()
        assert image.attention_share == pytest.approx(1 - row[:prefix].sum().item(), abs=1e-5)
        np.testing.assert_allclose(np.ravel(image.attention), 24 * patches / patches.sum(), rtol=1e-4)
        assert np.mean(image.attention) == pytest.approx(1)


def test_a_class_token_that_looks_at_one_patch_alone_shows_it():
    model = backbone()
    vit = model.encoder.vit
    heads, width = vit.blocks[-1].attn.num_heads, 96
    wanted = 3 * 6 + 4
    with torch.no_grad():  # queries are constant; the wanted patch alone has the key that they ask for
        vit.blocks[1] = Marked(1 + wanted)
        vit.blocks[-1].norm1 = nn.Identity()
        qkv = vit.blocks[-1].attn.qkv
        nn.init.zeros_(qkv.weight)
        nn.init.zeros_(qkv.bias)
        qkv.bias[:width] = 1.0
        qkv.weight[width : 2 * width, 0] = 1.0
    found = analyze_patches({"m": subject(model)}, images=2).models["m"]
    for image in found.shown:
        expected = np.zeros((4, 6))
        expected[3, 4] = 24
        np.testing.assert_allclose(image.attention, expected, atol=1e-4)
        assert image.attention_share == pytest.approx(1)
    assert heads > 1


def test_batches_change_nothing_and_models_share_images(tmp_path):
    wide, low = backbone(), backbone("vit_medium_patch16_reg4_gap_256", 1, (16, 16))
    pair = {"wide $x$ $y$": subject(wide), "low": subject(low, images_of())}
    result = analyze_patches(pair, images=2, seed=4)
    again = analyze_patches(
        {"wide $x$ $y$": subject(wide, batch_size=8), "low": subject(low, images_of(), batch_size=1)},
        images=2,
        seed=4,
    )
    one, other = result.models.values()
    assert [image.key for image in one.shown] == [image.key for image in other.shown]
    assert (one.at, other.at) == ((2, 3), (1, 1))
    for model, twin in zip(result.models.values(), again.models.values(), strict=True):
        assert model.norms.threshold == pytest.approx(twin.norms.threshold, rel=1e-5)
        for image, same in zip(model.shown, twin.shown, strict=True):
            for name in ("red", "green", "blue", "cosines"):
                np.testing.assert_allclose(getattr(image, name), getattr(same, name), atol=1e-3)
    told = json.loads(json.dumps(result.to_json()))
    assert np.shape(told["models"]["low"]["shown"][0]["cosines"]) == (2, 2)
    assert "picture" not in told["models"]["low"]["shown"][0]
    assert told["outlier_sigmas"] == 6
    patches_plot.draw(result).savefig(tmp_path / "patches.svg")
    assert "of 8 images" in (tmp_path / "patches.svg").read_text()


def test_a_foreground_has_components_of_its_own():
    tokens = torch.stack([direction(0) + 0.1 * direction(1 + i % 3) for i in range(24)]).view(4, 6, 96)
    tokens[1:3, 2:4] = torch.stack([-direction(0) + 0.3 * direction(5 + i) for i in range(4)]).view(2, 2, 96)
    found = analyze_patches({"m": subject(planted(tokens.view(24, 96)))}, images=1, only_foreground=True)
    (image,) = found.models["m"].shown
    assert image.foreground == 4 / 24
    hues = np.stack([image.red, image.green, image.blue], -1)
    assert not hues[0].any()
    assert hues[1:3, 2:4].any(axis=-1).sum() >= 3  # one may be lowest in all three
    assert sum(found.models["m"].explained) == pytest.approx(1)


def test_patches_that_cannot_be_shown_are_refused_with_a_sentence():
    model = backbone()
    with pytest.raises(LaminaError, match="outside of the grid"):
        analyze_patches({"m": subject(model)}, at=(4, 0))
    with pytest.raises(LaminaError, match="at least one model"):
        analyze_patches({})
    with pytest.raises(LaminaError, match="there are no images"):
        analyze_patches({"m": ModelOnImages(model, [])})
    with pytest.raises(LaminaError, match="1 or more"):
        analyze_patches({"m": subject(model)}, images=0)
    model.encoder.vit.blocks[-1] = Planted(torch.full((24, 96), torch.nan), 1)
    with pytest.raises(LaminaError, match="not finite"):
        analyze_patches({"m": subject(model)})


def test_batches_without_keys_are_counted():
    model, images = backbone(), images_of()
    bare = ModelOnImages(model, [Batch(images[:4]), Batch(images[4:6]), Batch(images[6:])])
    keyed = ModelOnImages(model, [Batch(images[i : i + 1], torch.tensor([i])) for i in range(8)])
    one, other = (analyze_patches({"m": s}, images=3).models["m"].shown for s in (bare, keyed))
    for image, same in zip(one, other, strict=True):
        assert (image.key, image.name) == (same.key, f"image {image.key}")
        np.testing.assert_allclose(image.norms, same.norms, rtol=1e-4)
    one, other = (analyze_retrieval({"m": s}, queries=2, k=2).models["m"] for s in (bare, keyed))
    assert one.scores is None
    assert all(np.array_equal(shown, picture_of(images[key])) for key, shown in one.pictures.items())
    assert set(one.pictures) == {i.key for q in one.queries for i in (q.image, *q.neighbours)}
    for query, same in zip(one.queries, other.queries, strict=True):
        assert query.image == same.image
        assert [n.key for n in query.neighbours] == [n.key for n in same.neighbours]


def test_which_images_are_shown_depends_on_their_keys_alone():
    assert (
        chosen_keys(range(100), 5, 0)
        == chosen_keys(reversed(range(100)), 5, 0)
        != chosen_keys(range(100), 5, 1)
    )
    part = chosen_keys(range(50), 5, 0)
    assert set(chosen_keys(range(100), 5, 0)) <= {*part, *range(50, 100)}
    assert chosen_keys([3, 1], 5, 0) == (1, 3)


def test_pictures_show_what_was_stored():
    image = images_of(1, 4)[0]
    assert np.array_equal(picture_of(image), image[:3].permute(1, 2, 0).numpy())
    assert np.array_equal(picture_of(image[:2])[..., 2], image[0].numpy())
    assert picture_of(image, 20).shape == (11, 16, 3)
    assert picture_of(torch.tensor([[[0.0, 0.5, 1.0]]]))[0, :, 0].tolist() == [0, 128, 255]
    assert figure_text("a$b$\x1b") == r"a\$b\$\x1b"
    assert len(figure_text("x" * 100, 10)) == 10


def gallery(rows, pixels=None):
    unit = torch.nn.functional.normalize(torch.as_tensor(rows, dtype=torch.float64), dim=1)
    return UnitVectors(unit, torch.eye(len(unit), dtype=torch.float64) if pixels is None else pixels)


def test_precision_and_map_by_hand():
    angles = torch.tensor([0.0, 0.1, 0.25, 0.45, 2.0])
    rows = torch.stack([angles.cos(), angles.sin()], 1)
    found = score_rankings(gallery(rows), torch.tensor([0, 1, 0, 0, 1]), 2)
    # nearest first: 0: 1 2 3 4 -> -xx-; 1: 0 2 3 4 -> ---x; 2: 1 3 0 4 -> -xx-; 3: 2 1 0 4 -> x-x-; 4: 3 2 1 0 -> --x-
    average = [(1 / 2 + 2 / 3) / 2, 1 / 4, (1 / 2 + 2 / 3) / 2, (1 + 2 / 3) / 2, 1 / 3]
    assert found.mean_average_precision == pytest.approx(np.mean(average))
    assert found.precision == pytest.approx(np.mean([1 / 2, 0, 1 / 2, 1 / 2, 0]))
    assert found.chance == pytest.approx(np.mean([1 / 2, 1 / 4, 1 / 2, 1 / 2, 1 / 4]))
    assert found.n_queries == 5
    alone = score_rankings(gallery(rows[:3]), torch.tensor([0, 1, 0]), 1)
    assert alone.n_queries == 2  # nobody shares the class of the second
    assert score_rankings(gallery(rows[:2]), torch.tensor([0, 1]), 1) is None


def test_average_precision_is_that_of_scikit_learn():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(30, 4)), rng.integers(0, 3, 30)
    found = score_rankings(gallery(rows), torch.from_numpy(labels), 5)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    similarity = unit @ unit.T
    others = ~np.eye(30, dtype=bool)
    averages = [
        average_precision_score(labels[others[i]] == labels[i], similarity[i][others[i]]) for i in range(30)
    ]
    assert found.mean_average_precision == pytest.approx(np.mean(averages))


def test_near_duplicates_are_told_by_pixels():
    images = images_of(4).float() / 255
    brighter = images[:1] * 0.9 + 0.05
    noisy = (images[:1] + 0.5 * (images[1:2] - 0.5)).clamp(0, 1)
    flat = torch.full((2, 3, 32, 48), 0.3)
    flat[1] = 0.8
    pixels = pixel_units(torch.cat([images, brighter, noisy, flat]))
    alike = (pixels @ pixels.T > 0.999).nonzero().tolist()
    assert [pair for pair in alike if pair[0] < pair[1]] == [[0, 4], [6, 7]]
    faint = pixel_units(0.5 + 0.02 * (images - 0.5))  # as raw vectors they point the same way
    assert ((faint @ faint.T).abs() > 0.999).sum() == 4


@pytest.mark.parametrize(("name", "channels"), KINDS)
def test_neighbours_of_every_encoder_against_dense_cosines(name, channels):
    model = backbone(name, channels)
    base = images_of(10, channels, seed=3)
    images = torch.cat([base, base[:1]])  # the last is the first again
    labels = [0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0]
    whole = analyze_retrieval({"m": subject(model, images, labels)}, queries=11, k=3)
    found = whole.models["m"]
    (batch,) = Images(subject(model, images).batches.source, model.image_size, channels, 11)
    vectors = model(batch.images).pooled("mean").double()
    unit = torch.nn.functional.normalize(vectors - vectors.mean(0), dim=1)
    similarity = (unit @ unit.T).fill_diagonal_(-2)
    similarity[0, 10] = similarity[10, 0] = -2
    assert found.duplicates == 1
    for query in found.queries:
        i = query.image.key
        expected = similarity[i].topk(3)
        # the two copies are equally near to others, up to rounding
        assert [n.key % 10 for n in query.neighbours] == (expected.indices % 10).tolist()
        assert [n.cosine for n in query.neighbours] == pytest.approx(expected.values.tolist(), abs=1e-5)
        assert query.duplicates == (i in (0, 10))
        assert query.image.name == f"{i}.png"
        assert query.image.label == f"class {labels[i]}"
    hits = [np.mean([labels[n.key] == labels[q.image.key] for n in q.neighbours]) for q in found.queries]
    assert found.scores.precision == pytest.approx(np.mean(hits))
    again = analyze_retrieval({"m": subject(model, images, labels, batch_size=11)}, queries=11, k=3)
    assert again.models["m"].scores.precision == found.scores.precision


def test_retrieval_of_several_models(tmp_path):
    models = {"a $x$ $y$": backbone(), "<b>": backbone("vit_medium_patch16_reg4_gap_256", 1)}
    subjects = {name: subject(model, images_of(), [0, 1] * 4) for name, model in models.items()}
    result = analyze_retrieval(subjects, queries=3, k=2, seed=1)
    one, other = result.models.values()
    assert [q.image.key for q in one.queries] == [q.image.key for q in other.queries]
    told = json.loads(json.dumps(result.to_json()))
    assert "pictures" not in told["models"]["<b>"]
    assert told["models"]["<b>"]["queries"][0]["neighbours"][0]["name"].endswith(".png")
    assert told["centred"] is True
    retrieval_plot.draw(result).savefig(tmp_path / "retrieval.svg")
    assert "precision@2" in (tmp_path / "retrieval.svg").read_text()
    fused = analyze_retrieval({"a": subject(models["a $x$ $y$"])}, k=2, features="fused", pool="cls")
    assert fused.models["a"].queries[0] != one.queries[0]
    with pytest.raises(LaminaError, match="no class token"):
        analyze_retrieval({"b": subjects["<b>"]}, pool="cls")
    with pytest.raises(LaminaError, match="8 images have at most 7"):
        analyze_retrieval(subjects, k=8)
    with pytest.raises(LaminaError, match="at least one model"):
        analyze_retrieval({})
    with pytest.raises(LaminaError, match="there are no images"):
        analyze_retrieval({"m": ModelOnImages(backbone(), [])})
