"""What reconstructions leave out: closed forms, the transform written out, and real methods of every kind."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from torch import nn

import lamina
from lamina.analyze.catalog import analysis
from lamina.analyze.measures.cosine_transform import energies, energy_curve, frequencies
from lamina.analyze.reconstruction import Filler, analyze_reconstruction
from lamina.analyze.reconstruction_plot import draw, summarize
from lamina.cli.entry import main
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.patches import patchify, take, unpatchify
from lamina.core.text import NO_VALUE
from lamina.mim import MIM, Prediction
from lamina.report.model_pictures import reconstruct
from lamina.targets.hog import HOG
from lamina.targets.pixels import Pixels

PATCH, GRID = (8, 6), (3, 5)
SIZE = (PATCH[0] * GRID[0], PATCH[1] * GRID[1])


def waves(n):
    """The n cosine waves of one axis as rows, orthonormal, by the formula."""
    k, x = np.arange(n)[:, None], np.arange(n)[None]
    return np.sqrt(np.where(k == 0, 1, 2) / n) * np.cos(np.pi * k * (x + 0.5) / n)


def tiles(patches, patch=PATCH):
    """(B, N, K) as (B, N, C, h, w)."""
    b, n, _ = patches.shape
    return patches.reshape(b, n, *patch, -1).permute(0, 1, 4, 2, 3).double().numpy()


class Method(MIM):
    """Predicts at hidden patches what `guess` makes of all patches of the image (B, N, K)."""

    def __init__(self, guess, chans=3, norm_pix=False, low_pass=None, everywhere=False):
        nn.Module.__init__(self)  # of a method the target, the grid and a prediction are enough
        self.target = Pixels(PATCH, [0.4] * chans, [0.3] * chans, norm_pix, low_pass)
        self.encoder = SimpleNamespace(patch=PATCH, grid_of=lambda images: GRID)
        self.guess, self.everywhere = guess, everywhere

    def predict(self, batch):
        pixels = self.guess(patchify(batch.images, PATCH))
        images = unpatchify(pixels, PATCH, GRID)
        c = len(self.target.mean)
        values = patchify((images - self.target.mean) / self.target.std, PATCH)
        if self.target.norm_pix:
            true = patchify((batch.images - self.target.mean) / self.target.std, PATCH)
            values = (values - true.mean(-1, keepdim=True)) / (true.var(-1, keepdim=True) + 1e-6).sqrt()
        assert values.shape[-1] == PATCH[0] * PATCH[1] * c
        every = torch.arange(15).expand(len(images), -1)
        where = every if self.everywhere else batch.mask.nonzero()[:, 1].reshape(len(images), -1)
        return Prediction(take(values, where), where, batch.mask)


def batch_of(n=4, chans=3, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(n, chans, *SIZE, generator=generator, dtype=dtype)
    mask = torch.stack([torch.randperm(15, generator=generator) < 11 for _ in range(n)])
    return Batch(images, torch.arange(n), mask)


def one(method, *batches):
    return analyze_reconstruction({"m": Filler(method, batches)}).models["m"]


@pytest.mark.parametrize("chans", [1, 4])
@pytest.mark.parametrize("norm_pix", [False, True])
@pytest.mark.parametrize("everywhere", [False, True])
def test_the_exact_original_leaves_out_nothing(chans, norm_pix, everywhere):
    found = one(Method(lambda p: p, chans, norm_pix, everywhere=everywhere), batch_of(chans=chans))
    assert found.mse == pytest.approx(0, abs=1e-14)
    assert found.high.ratio == pytest.approx(0, abs=1e-12)
    assert found.low.ratio == pytest.approx(0, abs=1e-12)
    assert (found.n_images, found.n_hidden, found.mask_ratio) == (4, 11, 11 / 15)
    assert found.norm_pix is norm_pix


@pytest.mark.parametrize("chans", [1, 3])
def test_energies_are_those_of_the_waves_and_sum_to_the_squared_pixels(chans):
    patches = torch.randn(2, 5, 48 * chans, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = energies(patches, PATCH).numpy()
    want = waves(8) @ tiles(patches) @ waves(6).T
    np.testing.assert_allclose(found, (want**2).mean((1, 2)), rtol=1e-10)
    np.testing.assert_allclose(found.mean((1, 2)), patches.square().mean((1, 2)), rtol=1e-10)


def test_frequencies_are_radians_per_pixel_over_pi():
    at = frequencies(8, 6)
    y, x = np.meshgrid(np.arange(8) / 8, np.arange(6) / 6, indexing="ij")
    np.testing.assert_allclose(at, np.hypot(y, x))
    found = energy_curve(at)
    np.testing.assert_allclose(found.values, found.frequencies)
    assert sum(found.counts) == 48
    assert np.diff(found.frequencies).max() < 1.5 / 6


def test_parseval_psnr_and_baselines_by_pixels():
    batch = batch_of()
    noise = torch.randn(4, 15, 144, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 10
    found = one(Method(lambda p: p + noise), batch)
    hidden = batch.mask
    mse = float(noise[hidden].square().mean())
    assert found.mse == pytest.approx(mse, rel=1e-6)
    assert np.dot(found.counts, found.error) / 48 == pytest.approx(mse, rel=1e-6)
    assert found.psnr == pytest.approx(10 * math.log10(1 / mse), rel=1e-6)
    shown = unpatchify(hidden[..., None].expand(-1, -1, 48), PATCH, GRID)[:, 0]
    squares = []
    for image, area in zip(batch.images, shown, strict=True):
        colour = image[:, ~area].mean(1, keepdim=True)
        squares.append((image[:, area] - colour).square().mean())
    assert found.baseline_mse == pytest.approx(float(torch.stack(squares).mean()), rel=1e-6)
    assert np.dot(found.counts, found.original) / 48 == pytest.approx(found.baseline_mse, rel=1e-6)
    assert found.baseline_psnr == pytest.approx(-10 * math.log10(found.baseline_mse))


def low_passed(patches, cutoff=0.5):
    """Of each patch the waves below the cutoff, by matrices."""
    b, n, _ = patches.shape
    y, x = np.meshgrid(np.arange(8) / 8, np.arange(6) / 6, indexing="ij")
    seen = waves(8) @ tiles(patches) @ waves(6).T * (np.hypot(y, x) < cutoff)
    back = torch.from_numpy(waves(8).T @ seen @ waves(6))
    return back.permute(0, 1, 3, 4, 2).reshape(b, n, -1)


@pytest.mark.parametrize("norm_pix", [False, True])
def test_low_passed_patches_leave_out_all_that_is_high_and_nothing_else(norm_pix):
    batch = batch_of()
    found = one(Method(low_passed, norm_pix=norm_pix), batch)
    assert found.low.ratio == pytest.approx(0, abs=1e-9)
    assert found.mean.ratio == pytest.approx(0, abs=1e-9)
    assert found.high.ratio == pytest.approx(1, abs=1e-6)
    assert found.high.standard_error == pytest.approx(0, abs=1e-6)
    spectrum = waves(8) @ tiles(patchify(batch.images, PATCH)) @ waves(6).T
    y, x = np.meshgrid(np.arange(8) / 8, np.arange(6) / 6, indexing="ij")
    high = (spectrum.transpose(0, 1, 3, 4, 2)[batch.mask.numpy()][:, np.hypot(y, x) >= 0.5] ** 2).mean()
    assert found.high.error == pytest.approx(high, rel=1e-6)
    assert found.low.original > 0.01


def test_the_mean_alone_leaves_out_everything_but_itself():
    found = one(Method(lambda p: tile_means(p).expand_as(p), chans=1), batch_of(chans=1))
    assert found.mean.ratio == pytest.approx(0, abs=1e-9)
    assert found.ratio[1:] == pytest.approx([1] * (len(found.ratio) - 1), abs=1e-6)


def tile_means(patches):
    return patches.mean(-1, keepdim=True)


@pytest.mark.parametrize("chans", [1, 4])
def test_with_normalised_patches_no_prediction_is_the_mean_over_pixels_and_channels(chans):
    batch = batch_of(chans=chans)
    found = one(Method(lambda p: tile_means(p).expand_as(p), chans, norm_pix=True), batch)
    patches = patchify(batch.images, PATCH)[batch.mask]
    want = float((patches - patches.mean(1, keepdim=True)).square().mean())
    assert found.baseline_mse == pytest.approx(want, rel=1e-6)
    assert found.mse == pytest.approx(want, rel=1e-6)
    assert found.high.ratio == pytest.approx(1, abs=1e-6)
    if chans == 1:
        assert found.mean.ratio is None
    else:
        assert found.mean.ratio == pytest.approx(1, abs=1e-6)


def test_what_a_smooth_patch_holds_is_not_high():
    """Ramps, which a Fourier transform of the patch would find at every frequency of an axis."""
    slopes = torch.randn(3, 15, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y, x = torch.meshgrid(torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 6), indexing="ij")
    ramps = (slopes[:, :, 0, None] * y.reshape(-1, 1) + slopes[:, :, 1, None] * x.reshape(-1, 1)).flatten(2)
    at, energy = frequencies(*PATCH), energies(ramps, PATCH).mean(0)
    assert float(energy[at >= 0.5].sum() / energy.sum()) < 0.01
    fourier = np.abs(np.fft.fft2(tiles(ramps))) ** 2
    far = np.hypot(np.fft.fftfreq(8)[:, None], np.fft.fftfreq(6)[None]) >= 0.25
    assert fourier[..., far].sum() / fourier.sum() > 0.15


def test_the_ratio_is_one_of_means_and_its_error_spreads_over_images():
    wrong = torch.tensor([0.0, 0.1, 0.2, 0.3], dtype=torch.float64)[:, None, None]
    batch = batch_of()
    noise = torch.randn(4, 15, 144, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * wrong
    found = one(Method(lambda p: p + noise), batch).high
    single = [one(Method(lambda p, i=i: p + noise[i : i + 1]), part) for i, part in enumerate(batch.split(1))]
    e, o = (np.array([getattr(model.high, what) for model in single]) for what in ("error", "original"))
    assert found.ratio == pytest.approx(e.mean() / o.mean(), rel=1e-6)
    left_out = [(e.sum() - e[i]) / (o.sum() - o[i]) for i in range(4)]
    jackknife = math.sqrt(3 * np.var(left_out))
    assert found.standard_error == pytest.approx(jackknife, rel=0.1)
    assert all(model.high.standard_error is None for model in single)


NETWORKS = {
    "plain": ("vit_tiny_patch16_224", {}),
    "no class": ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg", "fc_norm": False}),
    "registers": ("vit_tiny_patch16_224", {"reg_tokens": 3}),
    "rotary": ("eva02_tiny_patch14_224", {"patch_size": 16, "use_fc_norm": False}),
}
SMALL = {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}


def network(kind="plain", size=(64, 96), chans=3):
    name, more = NETWORKS[kind]
    return timm.create_model(name, img_size=size, in_chans=chans, depth=2, **more)


def make(method, kind="plain", chans=3, **more):
    torch.manual_seed(0)
    statistics = {"mean": [0.5] * chans, "std": [0.2] * chans}
    return method(network(kind, chans=chans), **statistics, **more)


def stored(n=5, chans=3, size=(64, 96)):
    return torch.randint(
        256, (n, chans, *size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    )


def parts(images, per):
    keys = torch.arange(len(images))
    return [Batch(images[i : i + per], keys[i : i + per]) for i in range(0, len(images), per)]


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("chans", [1, 4])
def test_any_network_whatever_the_batches(kind, chans):
    method = make(lamina.mae, kind, chans, **SMALL)
    images = stored(chans=chans)
    found = one(method, *parts(images, 5))
    assert (found.grid, found.patch, found.n_hidden) == ((4, 6), (16, 16), 18)
    again = one(method, *parts(images, 2))
    np.testing.assert_allclose(found.error, again.error, rtol=1e-4)
    assert found.original == pytest.approx(again.original, rel=1e-6, abs=1e-12)
    without = [Batch(part.images) for part in parts(images, 2)]  # counted, as the keys above count
    assert one(method, *without).original == again.original


@pytest.mark.parametrize("method", ["mae", "pixmim", "crossmae", "simmim", "pixio"])
def test_the_error_is_that_of_the_pictures(method):
    """In 8-bit pictures, where predictions lie inside [0, 1]: an untrained decoder's, near the mean."""
    sizes = {"simmim": {}, "pixio": {**SMALL, "class_tokens": 1, "unit": 2}}.get(method, SMALL)
    made = make(getattr(lamina, method), **sizes)
    made.train()
    images = stored() // 4 + 96
    found = one(made, *parts(images, 5))
    assert made.training
    shown = reconstruct(made, parts(images, 5)[0])
    wrong = (shown.reconstruction.double() - shown.original.double()) / 255
    hidden = shown.hidden[:, None].expand_as(wrong)
    assert found.mse == pytest.approx(float(wrong[hidden].square().mean()), rel=5e-3)
    assert found.mask_ratio == pytest.approx(float(hidden.double().mean()))
    assert found.low_pass == (40 / 112 if method == "pixmim" else None)
    assert found.norm_pix == (method != "simmim")


def test_runs_with_the_same_masking_hide_the_same():
    images = stored()
    one_, other = (
        make(lamina.mae, kind, norm_pix=norm_pix, **SMALL)
        for kind, norm_pix in (("plain", True), ("rotary", False))
    )
    fillers = {"a": Filler(one_, parts(images, 5)), "b": Filler(other, parts(images, 3))}
    found = analyze_reconstruction(fillers).models
    assert found["a"].original[1:] == pytest.approx(found["b"].original[1:], rel=1e-6)
    assert found["a"].original[0] < found["b"].original[0]


def test_refusals():
    with pytest.raises(LaminaError, match="at least one run"):
        analyze_reconstruction({})
    with pytest.raises(LaminaError, match="no images"):
        one(Method(lambda p: p))
    hog = Method(lambda p: p)
    hog.target = HOG((16, 16), 3)
    with pytest.raises(LaminaError, match="the target of m, HOG, is not made of pixels"):
        one(hog, batch_of())
    few = Method(lambda p: p)
    whole = few.predict
    few.predict = lambda batch: Prediction(*(each[:, :4] for each in whole(batch)[:2]), batch.mask)
    with pytest.raises(LaminaError, match="m leaves out hidden patches"):
        one(few, batch_of())
    single = Method(lambda p: p)
    single.encoder.patch = (1, 1)
    with pytest.raises(LaminaError, match="no frequencies"):
        one(single, batch_of())


def test_constant_images_have_nothing_to_leave_out():
    batch = batch_of(2)
    flat = Batch(torch.full_like(batch.images, 0.25), batch.keys, batch.mask)
    found = one(Method(lambda p: p), flat)
    assert (found.low.ratio, found.high.ratio, found.mean.ratio) == (None, None, None)
    assert NO_VALUE in summarize(analyze_reconstruction({"m": Filler(Method(lambda p: p), [flat])})).rows[0]


@pytest.mark.parametrize("n", [1, 3])
def test_the_picture_the_table_and_the_numbers(n):
    names = [f"model {i}" for i in range(n)]
    methods = [Method(low_passed, norm_pix=i == 0, low_pass=0.3 if i else None) for i in range(n)]
    result = analyze_reconstruction(
        {name: Filler(method, [batch_of()]) for name, method in zip(names, methods, strict=True)}
    )
    figure = draw(result)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert all(
        any(name in text and "4 images, 73 % of 8 x 6 px hidden" in text for text in legend) for name in names
    )
    assert {axes.get_xlabel() for axes in figure.axes} >= {"frequency (π rad per px)"}
    told = summarize(result)
    assert [row[0] for row in told.rows] == names
    assert told.rows[0][5:] == ("0.0 ± 0.0 %", "0.0 ± 0.0 %", "100.0 ± 0.0 %")
    assert any("model 0: the method predicts normalised patches" in note for note in told.notes)
    assert any("cut off at 0.3 of Nyquist" in note for note in told.notes) == (n > 1)
    content = json.loads(json.dumps(result.to_json()))["models"]["model 0"]
    assert content["psnr"] == result.models["model 0"].psnr
    assert content["high"]["ratio"] == result.models["model 0"].high.ratio


TINY = {
    "encoder.width": 24,
    "encoder.depth": 2,
    "encoder.heads": 2,
    "decoder.width": 16,
    "decoder.depth": 1,
    "decoder.heads": 2,
    "fusion.kind": "none",
    "train.max_steps": 2,
    "data.workers": 0,
}


def trained(out, **options):
    sizes = {"image_size": 16, "patch_size": 4, "batch_size": 8}
    lamina.pretrain("sample:photos?crop=16&most=1", out, "mae-small", **sizes, options={**TINY, **options})
    return str(out)


def test_the_verb_writes_numbers_picture_and_a_section_of_the_report(tmp_path, capsys):
    run = trained(tmp_path / "run")
    capsys.readouterr()
    assert main(["analyze", "reconstruction", run, "--images", "6", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "relative error" in printed
    content = json.loads((tmp_path / "run" / "analyses" / "reconstruction.json").read_text())
    assert content["result"]["models"]["run"]["n_images"] == 6
    assert (tmp_path / "run" / "analyses" / "reconstruction.png").stat().st_size > 10_000
    assert analysis("reconstruction").title in (tmp_path / "run" / "report.html").read_text()

    hog = trained(
        tmp_path / "hog", **{"target.kind": "hog", "target.hog_cell_px": 2, "target.hog_gaussian_px": None}
    )
    capsys.readouterr()
    assert main(["analyze", "reconstruction", hog]) == 2
    assert "the target of hog, HOG, is not made of pixels" in capsys.readouterr().err
    assert main(["analyze", "reconstruction", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "is not a run" in capsys.readouterr().err
