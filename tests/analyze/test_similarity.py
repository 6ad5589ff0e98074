"""Similarity: the unbiased estimator against its definition over four images, CKA's invariances, minibatches."""

import json
import math
from dataclasses import replace
from itertools import permutations

import pytest
import torch

from helpers.runs import NAMES, NAMES_AND_CHANNELS, shaken, stripes
from lamina.analyze import similarity
from lamina.analyze.models import Images, ModelOnImages
from lamina.analyze.similarity import analyze_similarity, u_centred_gram
from lamina.analyze.similarity_plot import draw
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.encoder.build import build_vit, wrap_vit
from lamina.encoder.options import EncoderOptions
from lamina.interop.backbone import Backbone

SIZES = {"image_size": (32, 48), "patch_size": 8, "width": 48, "depth": 3, "heads": 4}


def backbone(name="vit_tiny_patch16_224", seed=0, **encoder):
    options = EncoderOptions(**{**SIZES, "name": name, "mean": None, "std": None, **encoder})
    if name.startswith("beit"):
        options = replace(options, hide="replace")
    torch.manual_seed(seed)
    return Backbone(shaken(wrap_vit(build_vit(options), options), seed))


def images(n=8, channels=3, seed=0, size=(32, 48)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, *size), dtype=torch.uint8, generator=generator)


def subject(model, pixels, size=4, keys=None):
    keys = torch.arange(len(pixels)) if keys is None else keys
    return ModelOnImages(
        model, [Batch(pixels[i : i + size], keys[i : i + size]) for i in range(0, len(pixels), size)]
    )


def normal(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hsic_of(*features):
    return similarity.unbiased_hsic(torch.stack([u_centred_gram(each).flatten() for each in features]))


def unbiased_hsic(x, y):
    return float(hsic_of(x, y)[0, 1])


def debiased_cka(x, y):
    return float(similarity.debiased_cka(hsic_of(x, y))[0, 1])


def by_four(x, y):
    """E[k_ij h_ij] + E[k_ij h_qr] - 2 E[k_ij h_iq] over all orders of four different images."""
    k, h = ((z @ z.T).tolist() for z in (x, y))
    terms = [k[i][j] * (h[i][j] + h[q][r] - 2 * h[i][q]) for i, j, q, r in permutations(range(len(x)), 4)]
    return sum(terms) / len(terms)


def by_double_sums(x, y):
    """Song et al. (2012), equation 5, every product a sum over indices."""
    n = range(len(x))
    k, h = ([[0.0 if i == j else float(z[i] @ z[j]) for j in n] for i in n] for z in (x, y))
    m = len(x)
    trace = sum(k[i][j] * h[j][i] for i in n for j in n)
    ones = sum(k[i][j] for i in n for j in n) * sum(h[i][j] for i in n for j in n)
    middle = sum(k[i][j] * h[j][q] for i in n for j in n for q in n)
    return (trace + ones / ((m - 1) * (m - 2)) - 2 * middle / (m - 2)) / (m * (m - 3))


@pytest.mark.parametrize("n", [4, 5, 7])
def test_hsic_is_the_mean_over_four_different_images(n):
    x, y = normal(n, 3, 1) + 0.5, normal(n, 9, 2)
    y[:, :3] += x
    assert unbiased_hsic(x, y) == pytest.approx(by_four(x, y), rel=1e-9)
    assert unbiased_hsic(x, y) == pytest.approx(by_double_sums(x, y), rel=1e-9)
    expected = by_double_sums(x, y) / (by_double_sums(x, x) * by_double_sums(y, y)) ** 0.5
    assert debiased_cka(x, y) == pytest.approx(expected, rel=1e-9)


def test_three_images_have_no_unbiased_estimate():
    with pytest.raises(LaminaError, match="needs 4 images, not 3"):
        debiased_cka(normal(3, 5, 0), normal(3, 5, 1))


def test_cka_does_not_change_with_rotation_scale_and_shift():
    x, y = normal(12, 6, 1), normal(12, 30, 2)
    y[:, :6] += 2 * x
    before = debiased_cka(x, y)
    assert 0.1 < before < 0.95
    turn = torch.linalg.qr(normal(30, 30, 3)).Q
    assert debiased_cka(x, 0.01 * y @ turn + normal(1, 30, 4)) == pytest.approx(before, rel=1e-9)
    assert debiased_cka(y, x) == pytest.approx(before, rel=1e-12)
    assert debiased_cka(x, x) == pytest.approx(1, abs=1e-12)
    assert debiased_cka(x, 7 * x @ torch.linalg.qr(normal(6, 6, 5)).Q - 3) == pytest.approx(1, abs=1e-9)
    assert debiased_cka(x, x * torch.linspace(0.1, 3, 6)) < 0.99  # other linear maps do change it
    # A mean of a thousand deviations, in single precision.
    far = (x + 1000).float()
    assert debiased_cka(far, y) == pytest.approx(before, rel=1e-3)


def test_independent_features_have_none_even_where_images_are_few():
    """Plain CKA of such features is near 1: n = 10 images of 400 channels."""
    found = torch.tensor(
        [debiased_cka(normal(10, 400, 2 * s), normal(10, 400, 2 * s + 1)) for s in range(300)]
    )
    error = found.std() / len(found) ** 0.5
    assert abs(found.mean()) < 3 * error < 0.06
    x, y = (z - z.mean(0) for z in (normal(10, 400, 0), normal(10, 400, 1)))
    plain = ((x.T @ y).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())).item()
    assert plain > 0.9


def test_centred_matrices_have_no_rows_and_a_constant_has_none():
    gram = u_centred_gram(normal(6, 3, 0) + 4)
    torch.testing.assert_close(gram.sum(0), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-12)
    assert gram.diagonal().tolist() == [0] * 6
    constant = torch.full((5, 3), 0.1)
    assert u_centred_gram(constant * (1 + 1e-7 * normal(5, 3, 0))).abs().max() == 0
    assert math.isnan(debiased_cka(constant, normal(5, 3, 1)))


@pytest.mark.parametrize(("name", "channels"), [*NAMES_AND_CHANNELS, ("beit_base_patch16_224", 3)])
def test_every_encoder_against_the_double_sums_of_its_layers(name, channels):
    model, pixels = backbone(name, in_chans=channels), images(channels=channels)
    encoder = model.encoder
    outputs = encoder(pixels, range(-1, 3))
    for pool in model.pools:
        result = analyze_similarity({"m": subject(model, pixels)}, pool=pool)
        assert result.layers["m"] == ((-1, 0, 1, 2) if pool == "mean" else (0, 1, 2))
        assert (result.n_images, result.minibatches) == (8, (8,))
        one, other = (
            o[:, : encoder.n_class].mean(1) if pool == "cls" else o[:, encoder.n_prefix :].mean(1)
            for o in (outputs[1].double(), outputs[3].double())
        )
        expected = by_double_sums(one, other)
        expected /= (by_double_sums(one, one) * by_double_sums(other, other)) ** 0.5
        cka = result.between("m", "m")
        assert cka[-3][-1] == pytest.approx(expected, rel=1e-4)
        assert cka[-1][-3] == pytest.approx(cka[-3][-1], rel=1e-12)
        assert [cka[i][i] for i in range(len(cka))] == pytest.approx([1] * len(cka))


def test_minibatches_average_the_estimator_not_the_ratio():
    model, other, pixels = backbone(), backbone(seed=1), images(19)
    subjects = {"a": subject(model, pixels, 6), "b": subject(other, pixels, 5)}
    result = analyze_similarity(subjects, minibatch=5)
    assert result.minibatches == (5, 5, 9)  # what is left over is not enough by itself
    parts = [slice(0, 5), slice(5, 10), slice(10, 19)]
    x, y = (m.encoder(pixels, [2])[0][:, 1:].mean(1) for m in (model, other))
    xy, xx, yy = (
        sum((p.stop - p.start) * unbiased_hsic(one[p], two[p]) for p in parts)
        for one, two in ((x, y), (x, x), (y, y))
    )
    assert result.between("a", "b")[3][3] == pytest.approx(xy / (xx * yy) ** 0.5, rel=1e-4)
    assert result.between("b", "a")[0][3] == result.between("a", "b")[3][0]
    whole = analyze_similarity(subjects)
    assert whole.minibatches == (19,)
    assert whole.between("a", "b")[3][3] == pytest.approx(debiased_cka(x, y), rel=1e-4)
    assert whole.between("a", "b") != result.between("a", "b")


def test_batches_of_any_size_give_the_same_matrix():
    model, pixels = backbone(), images(14)
    one, other = (
        torch.tensor(analyze_similarity({"m": subject(model, pixels, size)}, minibatch=4).between("m", "m"))
        for size in (3, 14)
    )
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_model_rotated_in_its_width_is_the_same_model():
    model = backbone(depth=2)
    turned = backbone(depth=2)
    turn = torch.linalg.qr(torch.randn(48, 48)).Q
    for m in (model, turned):  # blocks that are linear in their tokens
        m.encoder.vit.blocks[0] = torch.nn.Linear(48, 48, bias=False)
        m.encoder.vit.blocks[1] = torch.nn.Identity()
    with torch.no_grad():
        turned.encoder.vit.blocks[0].weight.copy_(3 * turn @ model.encoder.vit.blocks[0].weight)
    pixels = images(9)
    cka = analyze_similarity({"m": subject(model, pixels), "t": subject(turned, pixels)}).between("m", "t")
    assert cka[1][1] == pytest.approx(1, abs=1e-4)
    assert cka[0][0] == pytest.approx(1, abs=1e-6)
    assert cka[0][1] < 0.999


def test_a_layer_that_is_the_same_for_all_images_has_no_similarity(tmp_path):
    class Nothing(torch.nn.Module):
        def forward(self, x):
            return torch.zeros_like(x)

    model = backbone(depth=2)
    model.encoder.vit.blocks[1] = Nothing()
    result = analyze_similarity({"m": subject(model, images())})
    cka = result.between("m", "m")
    assert cka[2] == (None, None, None)
    assert [row[2] for row in cka] == [None, None, None]
    assert cka[0][0] == pytest.approx(1)
    assert "NaN" not in json.dumps(result.to_json())
    draw(result).savefig(tmp_path / "similarity.svg")


def test_models_side_by_side(tmp_path):
    models = {
        "plain": backbone(depth=4),
        "registers": backbone("vit_medium_patch16_reg4_gap_256", image_size=(32, 32), width=24),
        "grey": backbone("eva02_tiny_patch14_224", in_chans=1),
    }
    source = stripes(8, 1)
    subjects = {
        name: ModelOnImages(m, Images(source, m.image_size, m.encoder.in_chans, batch_size=3))
        for name, m in models.items()
    }
    result = analyze_similarity(subjects)
    assert [(pair.first, pair.second) for pair in result.pairs] == [
        ("plain", "plain"), ("plain", "registers"), ("plain", "grey"),
        ("registers", "registers"), ("registers", "grey"), ("grey", "grey"),
    ]  # fmt: skip
    read = json.loads(json.dumps(result.to_json()))
    assert (len(read["pairs"][1]["cka"]), len(read["pairs"][1]["cka"][0])) == (5, 4)
    figure = draw(result)
    assert sum(panel.get_visible() for panel in figure.axes) == 7  # six maps and the colour bar
    figure.savefig(tmp_path / "similarity.svg")
    drawn = (tmp_path / "similarity.svg").read_text()
    for text in ("block of grey", "8 images", "debiased linear CKA"):
        assert text in drawn


def test_what_has_no_similarity_is_refused_with_a_sentence():
    model, pixels = backbone(), images()
    with pytest.raises(LaminaError, match="at least one model"):
        analyze_similarity({})
    with pytest.raises(LaminaError, match="minibatch 3 is too small"):
        analyze_similarity({"m": subject(model, pixels)}, minibatch=3)
    with pytest.raises(LaminaError, match="fewer than 4 images"):
        analyze_similarity({"m": subject(model, pixels[:3])})
    with pytest.raises(LaminaError, match="no pool 'cls'; take mean"):
        analyze_similarity({"m": subject(backbone(NAMES[1]), pixels)}, pool="cls")
    with pytest.raises(LaminaError, match="no models 'm' and 'x'"):
        analyze_similarity({"m": subject(model, pixels)}).between("m", "x")
    other = {"m": subject(model, pixels)}
    with pytest.raises(LaminaError, match="same images in the same order"):
        analyze_similarity({**other, "n": subject(model, pixels, keys=torch.arange(8).flip(0))})
    with pytest.raises(LaminaError, match="same images"):
        analyze_similarity({**other, "n": subject(model, pixels[:6])})
    with pytest.raises(LaminaError, match="different numbers"):
        analyze_similarity({**other, "n": subject(model, pixels[:4])}, minibatch=4)
    with pytest.raises(LaminaError, match="without keys"):
        analyze_similarity({**other, "n": ModelOnImages(model, [Batch(pixels)])})
    with torch.no_grad():
        model.encoder.vit.blocks[1].mlp.fc2.bias += math.inf
    with pytest.raises(LaminaError, match="layer 1 of m are not finite"):
        analyze_similarity(other)
