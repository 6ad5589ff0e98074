"""The corruptions: against imagecorruptions-imaug with equal numbers, and against closed forms."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut, chelsea

from lamina.core.errors import LaminaError
from lamina.core.rng import Purpose, sample_keys, seed_for
from lamina.data.loading.loader import eval_batches
from lamina.data.options import DataOptions
from lamina.data.sources import ArraySource
from lamina.evaluate.robustness.corruptions import kinds as photographs
from lamina.evaluate.robustness.corruptions.blur import DISCS, disc, origins
from lamina.evaluate.robustness.corruptions.corrupt import Corruption, corrupt
from lamina.evaluate.robustness.corruptions.kinds import KINDS, SEVERITIES, available_kinds
from lamina.evaluate.robustness.corruptions.weather import plasma

HERE = available_kinds()


def photo(height: int, width: int, of=astronaut) -> torch.Tensor:
    pixels = np.array(Image.fromarray(of()).resize((width, height)))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def flat(value: int, *size: int) -> torch.Tensor:
    return torch.full(size or (3, 224, 224), value, dtype=torch.uint8)


def unit(image: torch.Tensor) -> torch.Tensor:
    return image.double() / 255


def numbers(key: int, kind: str, severity: int) -> np.random.RandomState:
    seed = seed_for(key, Purpose.CORRUPTION, KINDS.index(kind), severity)
    return np.random.RandomState([seed & 0xFFFFFFFF, seed >> 32])


# --- against the maintained implementation --------------------------------------------------------------


@pytest.fixture
def reference():
    """Its `corrupt`, drawing from a generator given; numpy's global one is put back afterwards."""
    package = pytest.importorskip(
        "imagecorruptions", reason="imagecorruptions-imaug is not installed", exc_type=ImportError
    )
    before = np.random.get_state()  # noqa: NPY002 (the package draws from it)

    def call(image: torch.Tensor, kind: str, severity: int, draw: np.random.RandomState) -> torch.Tensor:
        np.random.set_state(draw.get_state())  # noqa: NPY002
        given = {}
        if kind == "impulse_noise":  # it takes a new generator, here on the same stream
            stream = np.random.MT19937()
            stream.state = draw.get_state(legacy=False)
            given["seed"] = np.random.Generator(stream)
        pixels = image.permute(1, 2, 0).contiguous().numpy()
        found = package.corrupt(pixels, severity, kind, **given)
        return torch.from_numpy(found.copy()).permute(2, 0, 1)

    yield call
    np.random.set_state(before)  # noqa: NPY002


# What differs rounds in another library: sums in another order where a truncation follows, OpenCV's bicubic
# weights of 11 bits. Elsewhere every value is the same.
LEVELS = {"defocus_blur": 1, "motion_blur": 1, "snow": 1, "frost": 1}


@pytest.mark.parametrize("kind", [kind for kind in HERE if kind != "glass_blur"])
def test_equal_to_the_maintained_implementation(kind, reference):
    for image in (photo(224, 224), photo(91, 150, chelsea)):
        for severity in SEVERITIES:
            want = reference(image, kind, severity, numbers(7, kind, severity)).int()
            apart = (corrupt(image, kind, severity, 7).int() - want).abs()
            assert apart.max() <= LEVELS.get(kind, 0)
            assert (apart > 0).double().mean() < 0.001


@pytest.mark.parametrize("kind", ["defocus_blur", "motion_blur", "zoom_blur", "snow", "fog"])
def test_on_flat_images_rounding_is_one_level_at_most(kind, reference):
    for value in (0, 128, 255):
        image = flat(value, 3, 48, 64)
        for severity in SEVERITIES:
            want = reference(image, kind, severity, numbers(7, kind, severity)).int()
            assert (corrupt(image, kind, severity, 7).int() - want).abs().max() <= 1


@pytest.mark.parametrize(("reach", "seed"), [(1, 0), (2, 1), (3, 2), (4, 3)])
def test_glass_copies_as_the_maintained_implementation_does(reach, seed, reference):
    from imagecorruptions.corruptions import _shuffle_pixels_njit_glass_blur as compiled

    image = np.random.default_rng(seed).integers(0, 256, (23, 31, 3), dtype=np.uint8)
    want = compiled.py_func(
        23, 31, image.copy(), (0.0, reach, 1), seed
    )  # the loop itself: compiling takes long
    got = image.reshape(-1, 3)[origins(23, 31, reach, np.random.RandomState(seed))]
    assert np.array_equal(got.reshape(image.shape), want)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_glass_is_the_maintained_implementations_whole(severity, reference, monkeypatch):
    """Its blurs, reach and passes too; its loop is run uncompiled, on a generator of the same seed."""
    from imagecorruptions import corruptions as package

    loop = package._shuffle_pixels_njit_glass_blur.py_func
    monkeypatch.setattr(package, "_shuffle_pixels_njit_glass_blur", loop)
    image, seed = photo(37, 52), seed_for(7, Purpose.CORRUPTION, KINDS.index("glass_blur"), severity)
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    want = np.uint8(package.glass_blur(pixels, severity, seed=[seed & 0xFFFFFFFF, seed >> 32]))
    got = corrupt(image, "glass_blur", severity, 7).permute(1, 2, 0).numpy()
    apart = np.abs(got.astype(int) - want.astype(int))
    assert apart.max() <= 1  # rounding: its blur is skimage's
    assert (apart > 0).mean() < 0.001


# --- against closed forms -------------------------------------------------------------------------------


@pytest.mark.parametrize(("severity", "deviation"), [(1, 0.08), (2, 0.12)])
def test_gaussian_noise_has_its_moments(severity, deviation):
    got = unit(corrupt(flat(128), "gaussian_noise", severity, 1)) + 0.5 / 255  # truncated: half a level low
    n = got.numel()
    assert abs(got.mean() - 128 / 255) < 4 * deviation / n**0.5
    assert abs(got.std() / deviation - 1) < 4 / (2 * n) ** 0.5 + (1 / 255 / deviation) ** 2 / 24
    noise = (got - got.mean()) / got.std()
    for one, other in (
        (noise[:, 1:], noise[:, :-1]),
        (noise[..., 1:], noise[..., :-1]),
        (noise[1:], noise[:-1]),
    ):
        assert abs((one * other).mean()) < 4 / one.numel() ** 0.5  # neither pixels nor channels share it


@pytest.mark.parametrize(("severity", "photons"), [(1, 60), (2, 25), (3, 12)])
def test_shot_noise_has_the_variance_of_counting(severity, photons):
    for value in (26, 77, 128):
        got = unit(corrupt(flat(value), "shot_noise", severity, 1)) + 0.5 / 255
        mean, variance = value / 255, value / 255 / photons
        assert abs(got.mean() - mean) < 4 * (variance / got.numel()) ** 0.5 + 0.5 / 255
        assert abs(got.var() / variance - 1) < 0.05
        assert len(got.unique()) <= photons + 1


@pytest.mark.parametrize(("severity", "share"), [(1, 0.03), (2, 0.06), (3, 0.09), (4, 0.17), (5, 0.27)])
def test_impulse_noise_replaces_its_share_by_black_and_white_alike(severity, share):
    got = corrupt(flat(100), "impulse_noise", severity, 1)
    deviation = (share * (1 - share) / got.numel()) ** 0.5
    assert got.unique().tolist() == [0, 100, 255]
    assert abs((got != 100).double().mean() - share) < 4 * deviation
    assert abs((got == 255).double().mean() - share / 2) < 4 * deviation


def test_defocus_spreads_a_point_over_a_disc():
    for radius, edge in DISCS:
        kernel = disc(radius, edge)
        rows, columns = np.indices(kernel.shape) - len(kernel) // 2
        far = np.hypot(rows, columns)
        inside = np.pi * radius**2
        assert np.allclose(kernel[far < radius - 1.5], kernel.max(), rtol=1e-3)
        assert abs(1 / kernel.max() / inside - 1) < 0.1
        assert not kernel[far > radius + 3].any()
        assert kernel.sum() == pytest.approx({8: 1.013, 10: 1.011}.get(radius, 1), abs=5e-4)
    image = flat(0, 3, 41, 41)
    image[:, 20, 20] = 255
    got = corrupt(image, "defocus_blur", 1, 0)[0]
    assert got[20, 20] == int(255 / 29)  # 29 whole pixels in a disc of 3 px
    assert got.count_nonzero() == 29


def test_glass_takes_pixels_one_after_the_other_from_nearby():
    image = np.random.default_rng(0).integers(0, 256, (19, 26, 3), dtype=np.uint8)
    for reach in (1, 2, 4):
        draw, shown = np.random.RandomState(5), image.copy()
        for h in range(19 - reach, reach, -1):
            for w in range(26 - reach, reach, -1):
                across, down = draw.randint(-reach, reach, size=2)
                shown[h, w] = shown[h + down, w + across]
        got = image.reshape(-1, 3)[origins(19, 26, reach, np.random.RandomState(5))]
        assert np.array_equal(got.reshape(image.shape), shown)


def test_glass_keeps_the_margin_and_needs_no_second_for_it():
    place = origins(224, 224, 4, np.random.RandomState(0)).reshape(224, 224)
    own = np.arange(224 * 224).reshape(224, 224)
    moved = place != own
    assert not moved[:5].any()
    assert not moved[:, :5].any()
    assert not moved[221:].any()
    assert moved[5:221, 5:221].mean() > 0.9


@pytest.mark.parametrize("size", [(3, 8, 8), (3, 31, 90)])
def test_blurs_keep_flat_images_flat_whatever_their_size(size):
    for kind in ("motion_blur", "zoom_blur", "glass_blur", "elastic_transform"):
        for severity in SEVERITIES:
            assert (corrupt(flat(200, *size), kind, severity, 3).int() - 200).abs().max() <= 1


def test_motion_spreads_a_point_along_a_line_with_half_a_gaussian():
    image = flat(0, 3, 101, 101)
    image[:, 50, 50] = 255
    for key in range(5):
        angle = np.deg2rad(numbers(key, "motion_blur", 5).uniform(-45, 45))
        got = corrupt(image, "motion_blur", 5, key)[0].double()
        weights = np.exp(-(np.arange(41.0) ** 2) / (2 * 15**2))
        weights /= weights.sum()
        assert got.sum() == pytest.approx(255, abs=41)  # up to one level lost in each of 41 pixels
        rows, columns = (got / got.sum()).nonzero(as_tuple=True)
        mean = (got[rows, columns] * torch.hypot(rows - 50.0, columns - 50.0)).sum() / got.sum()
        assert mean == pytest.approx((weights * np.arange(41)).sum(), abs=1)
        across = (rows - 50) * np.cos(angle) - (columns - 50) * np.sin(angle)
        assert across.abs().max() < 1
        assert columns.max() == 50  # to one side alone, the left


def test_zoom_averages_slopes():
    ramp = torch.arange(20, 221).to(torch.uint8).expand(3, 201, 201).contiguous()
    for severity, factors in zip(SEVERITIES, (1.11, 1.16, 1.21, 1.26, 1.31), strict=True):
        steps = np.arange(1, factors, (0.01, 0.01, 0.02, 0.02, 0.03)[severity - 1])
        slope = (1 + (1 / steps).sum()) / (1 + len(steps))
        got = corrupt(ramp, "zoom_blur", severity, 0)[0].double()
        found = (got[:, 180] - got[:, 20]).mean() / 160
        assert found == pytest.approx(slope, rel=0.01)


def test_snow_whitens_and_lies_symmetrically():
    shares = (0.8, 0.7, 0.7, 0.65, 0.55)
    for severity, share in zip(SEVERITIES, shares, strict=True):
        got = corrupt(flat(0, 3, 60, 80), "snow", severity, 2)
        assert torch.equal(got, got.flip(1, 2))
        assert torch.equal(got[0], got[1])
        assert got.min() >= int(255 * (1 - share) / 2)
        bare = corrupt(flat(0, 3, 60, 80), "snow", severity, 3)
        assert not torch.equal(got, bare)


def test_fog_leaves_black_and_covers_white_by_its_thickness():
    assert not corrupt(flat(0), "fog", 5, 0).any()
    for severity, thickness in zip(SEVERITIES, (1.5, 2.0, 2.5, 2.5, 3.0), strict=True):
        got = corrupt(
            flat(255, 3, 256, 256), "fog", severity, 0
        )  # as large as the cloud, whose heights are 0 to 1
        assert got.max() == 255
        assert got.min() == int(255 / (1 + thickness))
        assert torch.equal(got[0], got[2])


def test_plasma_is_diamond_square():
    side, decay, draw = 8, 1.7, np.random.RandomState(4)
    heights, r, step = np.zeros((side, side)), 100.0, side
    while step > 1:
        half = step // 2
        for top, left, near in (  # centres of squares, then middles of their upper and of their left sides
            (half, half, ((-half, -half), (-half, half), (half, -half), (half, half))),
            (0, half, ((-half, 0), (half, 0), (0, -half), (0, half))),
            (half, 0, ((-half, 0), (half, 0), (0, -half), (0, half))),
        ):
            for y in range(top, side, step):
                for x in range(left, side, step):
                    around = [heights[(y + dy) % side, (x + dx) % side] for dy, dx in near]
                    heights[y, x] = sum(around) / 4 + r * draw.uniform(-r, r)
        r, step = r / decay, half
    want = (heights - heights.min()) / (heights.max() - heights.min())
    assert np.allclose(plasma(side, decay, np.random.RandomState(4)), want, atol=1e-5)


def test_plasma_is_smoother_the_faster_it_decays_and_goes_on_at_its_edges():
    rough, smooth = (
        np.mean([np.diff(plasma(64, decay, np.random.RandomState(k)), axis=0).std() for k in range(20)])
        for decay in (1.4, 2.0)
    )
    assert rough > 1.5 * smooth
    heights = [plasma(64, 2.0, np.random.RandomState(k)) for k in range(40)]
    inside, across = (np.mean([np.abs(each[0] - each[k]).mean() for each in heights]) for k in (1, -1))
    assert across == pytest.approx(inside, rel=0.1)


def test_brightness_adds_to_the_largest_channel_and_keeps_the_ratios():
    image = photo(50, 70)
    for severity, more in zip(SEVERITIES, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True):
        value = unit(image).amax(0)
        scale = (value + more).clamp(max=1) / value
        coloured = value > 0
        want = 255 * unit(image) * scale
        got = corrupt(image, "brightness", severity, 0).double()
        assert ((got - want)[:, coloured].abs() < 1 + 1e-6).all()


def test_contrast_draws_towards_the_mean_of_each_channel():
    image = photo(50, 70)
    for severity, left in zip(SEVERITIES, (0.4, 0.3, 0.2, 0.1, 0.05), strict=True):
        mean = image.double().mean((1, 2), keepdim=True)
        got = corrupt(image, "contrast", severity, 0).double()
        assert ((mean + left * (image - mean)).floor() - got).abs().max() <= 1e-9


@pytest.mark.parametrize(("severity", "stretch"), [(1, 12.5), (3, 21.25), (5, 30.0)])
def test_elastic_moves_pixels_as_far_as_smoothed_noise_says(severity, stretch):
    ramp = torch.arange(10, 234).to(torch.uint8).expand(3, 224, 224)
    most, smoothing = 0.005 * 224, 0.01 * 224
    deviation = stretch * most / 3**0.5 / (2 * np.pi**0.5 * smoothing)  # white noise under a Gaussian
    inside = slice(30, -30)
    for image in (ramp, ramp.mT.contiguous()):  # one shows what is moved across, the other what is moved down
        moved = torch.cat(
            [
                (corrupt(image, "elastic_transform", severity, key).double() + 0.5 - image)[
                    0, inside, inside
                ].flatten()
                for key in range(10)
            ]
        )
        assert (moved.var() - 1 / 12).sqrt() == pytest.approx(deviation, rel=0.1)
        assert abs(moved.mean()) < 0.2 * deviation


def test_pixelate_averages_blocks():
    image = photo(64, 96)
    got = corrupt(image, "pixelate", 5, 0)
    means = image.double().reshape(3, 16, 4, 24, 4).mean((2, 4))
    blocks = got.reshape(3, 16, 4, 24, 4)
    assert (blocks == blocks[:, :, :1, :, :1]).all()
    assert (blocks[:, :, 0, :, 0] - means).abs().max() <= 1


def test_jpeg_is_pillows():
    image = photo(50, 70)
    for severity, quality in zip(SEVERITIES, (25, 18, 15, 10, 7), strict=True):
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        want = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
        assert torch.equal(corrupt(image, "jpeg_compression", severity, 0), want)


# --- numbers, sizes, channels ---------------------------------------------------------------------------

RANDOM = [
    kind
    for kind in HERE
    if kind not in ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")
]

DIGESTS = """
import hashlib, torch
from lamina.evaluate.robustness.corruptions.corrupt import corrupt
from lamina.evaluate.robustness.corruptions.kinds import available_kinds
image = (torch.arange(3 * 40 * 50) * 37 % 256).to(torch.uint8).reshape(3, 40, 50)
digests = [hashlib.sha256(corrupt(image, k, s, 11).numpy()).hexdigest() for k in available_kinds() for s in (1, 5)]
"""


def test_another_process_gives_the_same():
    here: dict = {}
    exec(DIGESTS, here)
    done = subprocess.run(
        [sys.executable, "-c", DIGESTS + "print(*digests)"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == here["digests"]
    assert len(set(here["digests"])) == 2 * len(HERE)


@pytest.mark.parametrize("kind", HERE)
def test_an_image_is_a_function_of_key_kind_and_severity(kind):
    image = photo(40, 50)
    kept = image.clone()
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = corrupt(image, kind, 3, 1)
    assert torch.equal(corrupt(image, kind, 3, 1), first)
    assert torch.equal(image, kept)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    assert torch.equal(corrupt(image, kind, 3, 2), first) == (kind not in RANDOM)
    assert not torch.equal(corrupt(image, kind, 4, 1), first)


@pytest.mark.parametrize("kind", HERE)
def test_any_size_and_grey(kind):
    for height, width in ((1, 1), (2, 9), (8, 8), (28, 28), (33, 17), (300, 200)):
        grey = photo(height, width)[:1]
        three = grey.expand(3, -1, -1)
        for severity in (1, 5):
            got = corrupt(grey, kind, severity, 0)
            assert got.shape == grey.shape
            assert got.dtype == torch.uint8
            assert torch.equal(got, corrupt(three, kind, severity, 0)[:1])


def test_what_is_refused():
    image = photo(20, 20)
    for wrong, message in (
        ((image, "rain", 1, 0), "no corruption 'rain'"),
        ((image, "fog", 0, 0), "severity is 1, 2, 3, 4 or 5, not 0"),
        ((image, "fog", 6, 0), "not 6"),
        ((image[:2], "fog", 1, 0), "not 2 channels of uint8"),
        ((image.float() / 255, "fog", 1, 0), "not 3 channels of float32"),
    ):
        with pytest.raises(LaminaError, match=message) as error:
            corrupt(*wrong)
        assert "\n" not in str(error.value)
    with pytest.raises(LaminaError, match="no corruption"):
        Corruption("rain", 1)


def test_frost_without_photographs_is_refused(monkeypatch):
    monkeypatch.setattr(photographs, "find_spec", lambda name: None)
    assert available_kinds() == tuple(kind for kind in KINDS if kind != "frost")
    for call in (lambda: corrupt(photo(20, 20), "frost", 1, 0), lambda: Corruption("frost", 1)):
        with pytest.raises(LaminaError, match=r"lamina\[robustness\]"):
            call()


@pytest.mark.skipif("frost" not in HERE, reason="no photographs of frost: imagecorruptions-imaug is missing")
def test_frost_adds_a_part_of_a_photograph():
    seen = {tuple(corrupt(flat(0, 3, 30, 40), "frost", 1, key).flatten().tolist()) for key in range(6)}
    assert len(seen) == 6
    for severity, (own, frozen) in enumerate(((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)), 1):
        frost = corrupt(flat(0, 3, 30, 40), "frost", severity, 0)
        assert frost.max() <= 255 * frozen
        both = corrupt(flat(100, 3, 30, 40), "frost", severity, 0)
        assert ((frost + 100 * own).clamp(max=255) - both).abs().max() <= 1


# --- while images are read ------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_an_evaluation_corrupts_its_crops(workers):
    images = torch.stack([photo(48, 64), photo(48, 64, chelsea)] * 3)
    source = ArraySource(images, [str(i) for i in range(6)], [0, 1] * 3, ["a", "b"])
    options = DataOptions(eval_crop_share=0.875)
    plain = torch.cat([b.images for b in eval_batches(source, (32, 32), 3, 4, 0, options)])
    change = Corruption("gaussian_noise", 2, seed=9)
    batches = list(eval_batches(source, (32, 32), 3, 4, workers, options, change))
    got = torch.cat([batch.images for batch in batches])
    keys = sample_keys(9, 0, torch.arange(6)).tolist()
    for i, key in enumerate(keys):
        assert torch.equal(got[i], corrupt(plain[i], "gaussian_noise", 2, key))
    assert not torch.equal(got[0], got[2])  # the same picture, another index
    assert torch.cat([batch.labels for batch in batches]).tolist() == [0, 1] * 3


def test_deeper_images_are_rounded_to_8_bits_first():
    image = photo(20, 30)
    deep = image / 255 + 0.3 / 255
    change = Corruption("contrast", 1)
    assert torch.equal(change(deep.clamp(0, 1), 0), change(image, 0))


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_change_refuses_is_one_line(workers):
    source = ArraySource(torch.zeros(3, 2, 16, 16, dtype=torch.uint8), ["a", "b", "c"])
    with pytest.raises(LaminaError, match="not 2 channels of uint8") as error:
        list(eval_batches(source, (16, 16), 2, 2, workers, change=Corruption("fog", 1)))
    assert "\n" not in str(error.value)
