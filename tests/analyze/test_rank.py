"""Ranks against matrices whose spectrum is known, and the analysis against features collected at once."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.runs import NAMES_AND_CHANNELS, shaken, stripes, toy_recipe
from lamina.analyze.measures.rank import Moments, Scatters, rankme
from lamina.analyze.models import Images, ModelOnImages
from lamina.analyze.rank import analyze_rank
from lamina.analyze.rank_plot import draw
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.encoder.build import build_vit, wrap_vit
from lamina.encoder.options import EncoderOptions
from lamina.fusion.mff import MultiLevelFusion
from lamina.interop.backbone import Backbone
from lamina.recipes.build import build_method

SMALL = {"width": 24, "heads": 2}


def backbone(name="vit_tiny_patch16_224", fusion="mff", **encoder):
    if name.startswith("beit"):  # takes other decoders
        options = EncoderOptions(
            name=name, hide="replace", image_size=(32, 48), patch_size=8, depth=3, **{**SMALL, **encoder}
        )
        return Backbone(shaken(wrap_vit(build_vit(options), options)), MultiLevelFusion(24, 3, "all"))
    method = shaken(build_method(toy_recipe(name, fusion, **encoder)))
    return Backbone(method.encoder, method.fusion)


def images(n, channels=3, seed=0, size=(32, 48)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, *size), dtype=torch.uint8, generator=generator)


def batches(pixels, size=5):
    keys = torch.arange(len(pixels))
    return [Batch(pixels[i : i + size], keys[i : i + size]) for i in range(0, len(pixels), size)]


def orthogonal(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q


def centred_basis(n, k, seed=0):
    """k orthonormal columns of length n, each with mean 0."""
    generator = torch.Generator().manual_seed(seed)
    columns = torch.randn(n, k, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(torch.cat([torch.ones(n, 1, dtype=torch.float64), columns], 1)).Q[:, 1:]


def matrix(values, n, seed=0):
    """Centred, with these singular values."""
    values = torch.as_tensor(values, dtype=torch.float64)
    return centred_basis(n, len(values), seed) * values @ orthogonal(len(values), seed + 1)


def entropy_rank(values, eps=0.0):
    shares = [v / sum(values) + eps for v in values]
    return math.exp(-sum(p * math.log(p) for p in shares if p))


def moments(features):
    """Of vectors that come in two parts."""
    found = Moments(features.shape[1])
    for part in features.split(max(1, len(features) // 2)):
        found.add(part)
    return found


def effective_rank(features):
    return moments(features).effective_rank()


def power_law(features, *ranks):
    return moments(features).power_law(*ranks)


def lidar(views, **options):
    scatters = Scatters(views.shape[2])
    scatters.add(views)
    return scatters.lidar(**options)


def test_ranks_of_a_known_spectrum():
    values = [5.0, 3.0, 1.5, 0.5, 0.0, 0.0]
    features = matrix(values, 20)
    # A singular value that is zero is rounding of double precision under a root.
    assert effective_rank(features) == pytest.approx(entropy_rank(values), rel=1e-5)
    assert rankme(features) == pytest.approx(entropy_rank(values, 1e-7), rel=1e-5)
    assert moments(features).rankme() == pytest.approx(rankme(features), rel=1e-5)
    for k in (1, 4):
        assert effective_rank(matrix([2.0] * k + [0.0] * 3, 12)) == pytest.approx(k, rel=1e-5)
    assert effective_rank(torch.ones(7, 3)) == 0


def test_a_mean_is_one_more_singular_value_to_rankme_and_nothing_to_effective_rank():
    """Along a direction that the centred features leave out, its singular value is |mean| sqrt(n)."""
    values, n = [3.0, 2.0, 0.0], 16
    features = centred_basis(n, 3) * torch.tensor(values)
    moved = features + torch.tensor([0.0, 0.0, 2.5])
    assert effective_rank(moved) == pytest.approx(entropy_rank(values), rel=1e-5)
    for found in (rankme(moved), moments(moved).rankme()):
        assert found == pytest.approx(entropy_rank([3.0, 2.0, 2.5 * n**0.5], 1e-7), rel=1e-9)


def test_rotation_and_scale_change_no_rank():
    features = torch.randn(60, 12, dtype=torch.float64) * torch.linspace(0.1, 3, 12) + 1
    turned = 7 * features @ orthogonal(12, 3)
    for measure in (rankme, effective_rank, lambda x: power_law(x, 1, 8).alpha):
        assert measure(turned) == pytest.approx(measure(features), rel=1e-9)
    views = features.view(15, 4, 12)
    rotated = views @ orthogonal(12, 4)
    assert lidar(rotated) == pytest.approx(lidar(views), rel=1e-8)
    # Whitened, so any invertible map, where delta is small beside the scatter.
    skewed = views @ torch.randn(12, 12, dtype=torch.float64)
    assert lidar(skewed, delta=1e-12) == pytest.approx(lidar(views, delta=1e-12), rel=1e-5)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.3])
def test_a_power_law_gives_its_exponent(alpha):
    ranks = np.arange(1, 41.0)
    law = power_law(matrix(ranks ** (-alpha / 2), 90))
    assert (law.first, law.last) == (10, 20)
    assert law.alpha == pytest.approx(alpha, rel=1e-8)
    assert law.r2 == pytest.approx(1, abs=1e-9)


def test_the_fit_is_numpys_over_the_middle_range():
    features = torch.randn(50, 30, dtype=torch.float64) * torch.linspace(0.1, 3, 30)
    values = np.linalg.eigvalsh(np.cov(features.numpy().T))[::-1]
    x, y = np.log(np.arange(10, 16)), np.log(values[9:15])
    law = power_law(features)
    assert (law.first, law.last) == (10, 15)
    assert law.alpha == pytest.approx(-np.polyfit(x, y, 1)[0], rel=1e-9)
    assert law.r2 == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2, rel=1e-9)
    assert 0 < law.r2 < 1
    with pytest.raises(LaminaError, match="5 ranks"):
        power_law(features[:24])
    with pytest.raises(LaminaError, match="spectrum ends"):
        power_law(matrix([1.0] * 12 + [0.0] * 18, 50))


def test_lidar_of_identical_views_is_the_effective_rank_of_the_images_covariance():
    """S_w = delta I, so the eigenvalues are those of S_b over delta."""
    values = [3.0, 2.0, 1.0, 0.5]
    views = matrix(values, 20)[:, None].expand(-1, 5, -1)
    assert lidar(views) == pytest.approx(entropy_rank([v**2 for v in values], 1e-8), rel=1e-9)
    simplex = torch.eye(6, dtype=torch.float64)[:, None].expand(-1, 3, -1)  # n - 1 equal eigenvalues
    assert lidar(simplex) == pytest.approx(5, rel=1e-5)


def test_lidar_of_known_scatters():
    """Two views at m_i +- w e_k, where k goes round: S_w = w^2 / d on the diagonal, beside S_b = diag(b)."""
    n, b, w = 24, [4.0, 1.0, 0.25], [1.0, 3.0, 0.2]
    means = centred_basis(n, 3) * (n * torch.tensor(b, dtype=torch.float64)).sqrt()
    offsets = torch.diag(torch.tensor(w, dtype=torch.float64))[torch.arange(n) % 3]
    views = torch.stack([means + offsets, means - offsets], dim=1)
    expected = [between / (within**2 / 3 + 1e-4) for between, within in zip(b, w, strict=True)]
    assert lidar(views) == pytest.approx(entropy_rank(expected, 1e-8), rel=1e-9)


def test_lidar_of_pure_noise_nears_the_width():
    """Both scatters are multiples of one matrix but for the noise of n samples, so all directions count."""
    mixed = torch.diag(torch.linspace(0.3, 4, 8)) @ orthogonal(8).float()
    noise = torch.randn(4000, 4, 8, generator=torch.Generator().manual_seed(0)) @ mixed
    assert lidar(noise) == pytest.approx(8, rel=5e-3)
    assert effective_rank(noise.flatten(0, 1)) < 7.5  # which the scale of the directions lowers


@pytest.mark.parametrize(("name", "channels"), [*NAMES_AND_CHANNELS, ("beit_base_patch16_224", 3)])
def test_every_encoder_scored_as_its_features_collected_at_once(name, channels):
    model = backbone(name, in_chans=channels, mean=None, std=None)
    pixels = images(40, channels)
    found = analyze_rank({"m": ModelOnImages(model, batches(pixels))}).models["m"]
    encoder = model.encoder
    assert (found.n_images, found.width, found.most) == (40, encoder.width, min(40, encoder.width))
    assert bool(found.notes) == (encoder.width > 40)
    outputs = encoder(pixels, range(-1, encoder.depth))
    assert [score.layer for score in found.curve] == [-1, 0, 1, 2]
    for score in found.curve:
        features = outputs[score.layer + 1][:, encoder.n_prefix :].mean(1)
        assert score.rankme == pytest.approx(rankme(features), rel=1e-4)
        assert score.effective_rank == pytest.approx(effective_rank(features), rel=1e-4)
        assert score.lidar is None
    every = model.every(pixels)
    kinds = [(kind, pool) for kind in model.kinds for pool in model.pools]
    assert sorted((score.place, score.pool) for score in found.final) == sorted(kinds)
    for score in found.final:
        features = every[score.place].pooled(score.pool)
        assert score.rankme == pytest.approx(rankme(features), rel=1e-4)
        if encoder.width == 24:  # 10..12 are too few ranks
            assert score.power_law is None
        else:
            assert score.power_law == pytest.approx(power_law(features), rel=1e-3)


def test_batches_of_any_size_give_the_same_ranks():
    model, pixels = backbone(**SMALL), images(30)
    one, other = (
        analyze_rank({"m": ModelOnImages(model, batches(pixels, size))}, views=2).to_json()["models"]["m"][
            "scores"
        ]
        for size in (30, 7)
    )
    for a, b in zip(one, other, strict=True):
        for name in ("rankme", "effective_rank", "lidar"):
            assert a[name] == pytest.approx(b[name], rel=1e-4)


def test_views_are_crops_that_the_image_and_the_seed_decide():
    model = backbone(fusion="none", **SMALL)
    pixels = images(12)
    (whole,) = batches(pixels, 12)
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    first = analyze_rank({"m": ModelOnImages(model, [whole])}, views=3, seed=5).models["m"]
    drawn = torch.stack(seen[1:], dim=1)  # after the images themselves
    assert drawn.shape == (12, 3, 3, 32, 48)
    assert not torch.equal(drawn[:, 0], drawn[:, 1])
    for score in first.final:
        views = torch.stack([model.every(v)[score.place].pooled(score.pool) for v in drawn.unbind(1)], 1)
        assert score.lidar == pytest.approx(lidar(views), rel=1e-4)
    seen.clear()
    turned = Batch(pixels.flip(0), whole.keys.flip(0))
    analyze_rank({"m": ModelOnImages(model, [turned])}, views=3, seed=5)
    assert torch.equal(torch.stack(seen[1:], dim=1), drawn.flip(0))
    seen.clear()
    analyze_rank({"m": ModelOnImages(model, [whole])}, views=3, seed=6)
    assert not torch.equal(torch.stack(seen[1:], dim=1), drawn)
    seen.clear()
    analyze_rank({"m": ModelOnImages(model, [whole])}, views=2, view_scale=(1.0, 1.0))
    share = [(view.float().mean() - pixels.float().mean()).abs() for view in seen[1:]]
    assert max(share) < 1  # nearly everything is in view


def test_models_side_by_side(tmp_path):
    models = {
        "plain": backbone(fusion="none", **{**SMALL, "depth": 4}),
        "fused": backbone(**SMALL),
        "grey": backbone("vit_medium_patch16_reg4_gap_256", in_chans=1, mean=(0.5,), std=(0.3,)),
    }
    source = stripes(40, 1)
    subjects = {
        name: ModelOnImages(m, Images(source, m.image_size, m.encoder.in_chans, batch_size=16))
        for name, m in models.items()
    }
    result = analyze_rank(subjects, views=2)
    plain = json.loads(json.dumps(result.to_json()))
    assert set(plain["models"]["plain"]["scores"][-1]["power_law"] or {}) <= {"alpha", "r2", "first", "last"}
    draw(result).savefig(tmp_path / "rank.svg")
    drawn = (tmp_path / "rank.svg").read_text()
    for text in ("grey", "40 images", "depth as a share", "LiDAR, 2 views", "the number of images"):
        assert text in drawn
    alone = draw(replace(result, models={"plain": result.models["plain"]}, views=0))
    assert alone.axes[0].get_xlabel() == "after block (in: embedded input)"
    assert len(alone.axes) == 4


def test_what_has_no_rank_is_refused_with_a_sentence():
    model = backbone(**SMALL)
    some = batches(images(4))
    with pytest.raises(LaminaError, match="at least one model"):
        analyze_rank({})
    with pytest.raises(LaminaError, match="2 or more views"):
        analyze_rank({"m": ModelOnImages(model, some)}, views=1)
    with pytest.raises(LaminaError, match="1 image"):
        analyze_rank({"m": ModelOnImages(model, batches(images(1)))})
    with pytest.raises(LaminaError, match="batches with keys"):
        analyze_rank({"m": ModelOnImages(model, [Batch(images(4))])}, views=2)
    with torch.no_grad():
        model.encoder.vit.blocks[1].mlp.fc2.bias += math.inf
    with pytest.raises(LaminaError, match="not finite"):
        analyze_rank({"m": ModelOnImages(model, some)})
