"""Frequencies against closed forms, the published formula written out, and the sub-blocks' own sums."""

import math

import numpy as np
import pytest
import timm
import torch
from timm.models.vision_transformer import ParallelScalingBlock

from lamina.analyze.frequency import analyze_frequency
from lamina.analyze.frequency_plot import draw
from lamina.analyze.measures.fourier import amplitudes, bands_of, curve, log_amplitudes, magnitudes
from lamina.analyze.models import ModelOnImages
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.encoder.encoder import Encoder
from lamina.fusion.mff import MultiLevelFusion
from lamina.interop.backbone import Backbone

KINDS = {
    "plain": ("vit_tiny_patch16_224", {}),
    "no class": ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg", "fc_norm": False}),
    "registers": ("vit_tiny_patch16_224", {"reg_tokens": 3, "init_values": 0.5}),
    "eva": ("eva02_tiny_patch14_224", {"patch_size": 16, "use_fc_norm": False}),
    "beit": (
        "beit_base_patch16_224",
        {"num_heads": 3, "embed_dim": 48, "init_values": 0.5, "use_fc_norm": False},
    ),
}


def model(kind="plain", size=(64, 96), chans=3, decay=None):
    name, more = KINDS[kind]
    torch.manual_seed(0)
    vit = timm.create_model(name, img_size=size, in_chans=chans, **{"depth": 2, **more})
    hide = "replace" if kind == "beit" else "drop"
    return Backbone(Encoder(vit, hide, [0.5] * chans, [0.2] * chans, residual_decay=decay))


def subject(backbone, size=(64, 96), chans=3, n=5, per=5):
    images = torch.rand(n, chans, *size, generator=torch.Generator().manual_seed(1))
    return ModelOnImages(
        backbone, [Batch(images[i : i + per], keys=torch.arange(n)[i : i + per]) for i in range(0, n, per)]
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chans", [1, 4])
def test_attention_stage_is_the_stream_before_the_mlp(kind, chans):
    backbone = model(kind, chans=chans)
    looked = subject(backbone, chans=chans)
    found = analyze_frequency({"m": looked}).models["m"]
    assert [(s.layer, s.part) for s in found.stages] == [
        (-1, "input"), (0, "attention"), (0, "mlp"), (1, "attention"), (1, "mlp"),
    ]  # fmt: skip
    block = backbone.encoder.vit.blocks[0]
    kept = {}
    handle = block.mlp.register_forward_hook(lambda m, a, out: kept.update(mlp=out))
    out = backbone.encoder(looked.batches[0].images, [0])[0]
    handle.remove()
    branch = kept["mlp"]
    if getattr(block, "gamma_2", None) is not None:
        branch = block.gamma_2 * branch
    elif hasattr(block, "ls2"):
        branch = block.ls2(branch)
    maps = (out - branch)[:, backbone.encoder.n_prefix :].transpose(1, 2).unflatten(2, (4, 6))
    want = curve(log_amplitudes(maps) / maps[:, :, 0, 0].numel(), "exact", "radial").values
    np.testing.assert_allclose(found.stages[1].relative, np.subtract(want, want[0]), atol=2e-4)


def test_park_kim_is_the_published_formula():
    backbone = model(size=(96, 96))
    looked = subject(backbone, (96, 96))
    found = analyze_frequency({"m": looked}, mode="park-kim", direction="diagonal").models["m"]
    tokens = backbone.encoder(looked.batches[0].images, [1])[0][:, 1:]
    maps = tokens.double().numpy().transpose(0, 2, 1).reshape(5, -1, 6, 6)
    logs = np.log(np.abs(np.fft.fft2(maps)) + 1e-6)
    rolled = np.roll(logs, (3, 3), (2, 3)).mean((0, 1))
    want = np.diag(rolled)[3:]
    np.testing.assert_allclose(found.stages[-1].relative, want - want[0], atol=1e-6)
    assert found.frequencies == (0.0, 0.5, 1.0)


def test_independent_of_batch_size_and_decay_taken():
    backbone = model(decay=0.6)
    a, b = (analyze_frequency({"m": subject(backbone, per=per)}).models["m"] for per in (5, 2))
    for s, t in zip(a.stages, b.stages, strict=True):
        np.testing.assert_allclose(s.relative, t.relative, atol=1e-4)
    assert a.bands["last"].high == pytest.approx(b.bands["last"].high, rel=1e-5)


@pytest.mark.parametrize(("h", "w"), [(8, 8), (7, 9), (6, 10), (9, 6)])
def test_cosine_peaks_at_its_ring(h, w):
    x = torch.cos(2 * math.pi * 2 * torch.arange(w) / w).expand(1, 1, h, w)
    found = curve(amplitudes(x), "exact", "radial")
    peak = found.frequencies[int(np.argmax(found.values))]
    assert abs(peak - 4 / w) <= 1 / min(h, w) + 1e-9
    assert sum(found.counts) == h * w


def test_diagonal_holds_nyquist_and_shared_frequencies_alone():
    even = curve(magnitudes(14, 14), "exact", "diagonal")
    assert even.frequencies == pytest.approx([2 * k / 14 for k in range(8)])
    uneven = curve(magnitudes(6, 9), "exact", "diagonal")
    assert uneven.values == pytest.approx([0, 2 / 3 * math.sqrt(2)])


def test_bands_of_noise_and_blur():
    noise = torch.randn(64, 8, 9, 12, generator=torch.Generator().manual_seed(0))
    flat = bands_of(amplitudes(noise) / (64 * 8))
    assert flat.low == pytest.approx(math.sqrt(math.pi) / 2, rel=0.02)
    assert flat.high == pytest.approx(flat.low, rel=0.02)
    blurred = (noise + noise.roll(1, 2) + noise.roll(1, 3) + noise.roll((1, 1), (2, 3))) / 4
    assert bands_of(amplitudes(blurred)).share_high < 0.8 * flat.share_high


def test_refusals():
    with pytest.raises(LaminaError, match="at least one"):
        analyze_frequency({})
    with pytest.raises(LaminaError, match="even side"):
        analyze_frequency({"m": subject(model())}, mode="park-kim", direction="diagonal")
    with pytest.raises(LaminaError, match="radial"):
        curve(torch.zeros(4, 5), "exact", "diagonal")
    with pytest.raises(LaminaError, match="no images"):
        analyze_frequency({"m": ModelOnImages(model(), [])})


def test_whole_blocks_and_a_network_without_a_state_between():
    backbone = model()
    both, whole = (
        analyze_frequency({"m": subject(backbone)}, sub_blocks=s).models["m"] for s in (True, False)
    )
    assert [(s.layer, s.part) for s in whole.stages] == [(-1, "input"), (0, "block"), (1, "block")]
    assert [s.relative for s in whole.stages] == [s.relative for s in both.stages if s.part != "attention"]
    vit = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, block_fn=ParallelScalingBlock)
    parallel = Backbone(Encoder(vit))
    with pytest.raises(LaminaError, match="--no-sub-blocks"):
        analyze_frequency({"m": subject(parallel, (64, 64))})
    assert analyze_frequency({"m": subject(parallel, (64, 64))}, sub_blocks=False).models["m"].n_images == 5


def test_fused_features_have_bands_of_their_own():
    plain = model()
    torch.manual_seed(1)
    fused = Backbone(plain.encoder, MultiLevelFusion(plain.encoder.width, 2, (0, 1)))
    looked = subject(fused)
    found = analyze_frequency({"m": looked}).models["m"].bands
    assert set(found) == {"unnormed", "last", "fused"}
    tokens = fused.every(looked.batches[0].images)["fused"].patches
    maps = tokens.detach().double().numpy().transpose(0, 2, 1).reshape(5, -1, 4, 6)
    plane = np.abs(np.fft.fft2(maps, norm="ortho")).mean((0, 1))
    y, x = np.meshgrid(np.fft.fftfreq(4), np.fft.fftfreq(6), indexing="ij")
    at = np.hypot(x, y)
    assert found["fused"].high == pytest.approx(plane[at >= 0.25].mean(), rel=1e-6)
    assert found["fused"].low == pytest.approx(plane[(at > 0) & (at < 0.25)].mean(), rel=1e-6)


@pytest.mark.parametrize("n", [1, 3])
def test_the_picture_names_models_images_and_units(n):
    result = analyze_frequency({f"model {i}": subject(model()) for i in range(n)})
    figure = draw(result)
    titles = [axes.get_title() for axes in figure.axes]
    assert all(f"model {i} (5 images)" in titles for i in range(n))
    assert "frequency (π rad per patch)" in {axes.get_xlabel() for axes in figure.axes}
    assert (
        result.to_json()["models"]["model 0"]["stages"][0]["high"] == result.models["model 0"].stages[0].high
    )
