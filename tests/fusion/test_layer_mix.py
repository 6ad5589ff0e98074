"""CrossMAE's mix against its formula, and which decoders it fits."""

import pytest
import timm
import torch
from torch import nn

from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.rng import sample_keys
from lamina.decoder.cross import CrossDecoder
from lamina.decoder.mae import MAEDecoder
from lamina.encoder.encoder import Encoder
from lamina.fusion.build import build_fusion
from lamina.fusion.last_layer import LastLayer
from lamina.fusion.layer_mix import LayerMix
from lamina.fusion.mff import MultiLevelFusion
from lamina.fusion.options import FusionOptions
from lamina.losses import mse
from lamina.masking.random import RandomMasking
from lamina.mim import MIM
from lamina.targets.pixels import Pixels
from lamina.train.param_groups import param_groups

WIDTH, DEPTH, BLOCKS = 12, 3, 4


def features() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 5, WIDTH, dtype=torch.float64) for _ in range(DEPTH + 1)]


def shaken(module: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return module


def never(x: torch.Tensor) -> torch.Tensor:
    raise AssertionError("the encoder's norm was used")


class Never(nn.Module):
    forward = staticmethod(never)


@pytest.mark.parametrize("n_latents", [1, BLOCKS])
def test_mix_is_the_formula(n_latents):
    mix = shaken(LayerMix(WIDTH, DEPTH, n_latents).double())
    x = features()
    assert mix.layers == (-1, 0, 1, 2)
    weights, latents = mix.weight.tolist(), mix(x, Never())
    assert isinstance(latents, list) == (n_latents > 1)  # one latent is a tensor, as other fusions give it
    latents = latents if n_latents > 1 else [latents]
    assert len(latents) == n_latents
    for j, latent in enumerate(latents):
        y = torch.zeros_like(x[0])
        for i, tap in enumerate(x):
            y = y + weights[j][i] * tap
        centred = y - y.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        expected = scaled * mix.norms[j].weight + mix.norms[j].bias
        torch.testing.assert_close(latent, expected, rtol=1e-10, atol=1e-10)


def test_weights_start_as_published_and_decay():
    torch.manual_seed(0)
    mix = LayerMix(4, 99, 300)  # 100 taps, 30 000 weights: their spread is known to half a per cent
    assert float(mix.weight.detach().std()) == pytest.approx(0.1, rel=0.02)
    assert abs(float(mix.weight.detach().mean())) < 0.002
    group = next(g for g in param_groups(mix, 0.05) if any(p is mix.weight for p in g["params"]))
    assert group["weight_decay"] == 0.05


def test_the_options_build_it():
    mix = build_fusion(FusionOptions(kind="mix"), WIDTH, DEPTH, n_latents=BLOCKS)
    assert isinstance(mix, LayerMix)
    assert (mix.n_latents, mix.layers, mix.uses_norm) == (BLOCKS, (-1, 0, 1, 2), False)
    for options in (FusionOptions(kind="none"), FusionOptions(layers="all")):
        other = build_fusion(options, WIDTH, DEPTH, n_latents=BLOCKS)
        assert (other.n_latents, other.uses_norm) == (1, True)
    with pytest.raises(LaminaError, match="n_latents is 0"):
        LayerMix(WIDTH, DEPTH, 0)


def encoder() -> Encoder:
    torch.manual_seed(0)
    vit = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=WIDTH, depth=DEPTH, num_heads=2
    )
    return Encoder(vit)


def compose(fusion: nn.Module, decoder: str) -> MIM:
    part, target = encoder(), Pixels((8, 8), (0.5,) * 3, (0.25,) * 3)
    sizes = {"width": 16, "depth": BLOCKS, "heads": 2}
    if decoder == "mae":
        made = MAEDecoder(WIDTH, target.width, part.grid, part.n_prefix, **sizes)
    else:
        made = CrossDecoder(WIDTH, target.width, part.grid, part.n_prefix, latents=decoder, **sizes)
    return MIM(RandomMasking(0.75), part, fusion, made, target, mse)


FITTING = {
    "last, cross": lambda: compose(LastLayer(DEPTH), "one"),
    "mff, cross": lambda: compose(MultiLevelFusion(WIDTH, DEPTH, "all"), "one"),
    "mix, cross": lambda: compose(LayerMix(WIDTH, DEPTH, BLOCKS), "per_block"),
    "one mix, cross": lambda: compose(LayerMix(WIDTH, DEPTH), "one"),
    "one mix, mae": lambda: compose(LayerMix(WIDTH, DEPTH), "mae"),
}


@pytest.mark.parametrize("parts", FITTING)
def test_gradients_reach_every_parameter_in_use(parts):
    task = FITTING[parts]()
    shaken(task)
    batch = Batch(torch.rand(2, 3, 32, 32), sample_keys(0, 0, torch.arange(2)))
    loss = task(batch)["loss"]
    assert torch.isfinite(loss)
    loss.backward()
    without = [
        n for n, p in task.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert without == []  # the encoder's norm stands still where a fusion does not use it


@pytest.mark.parametrize(
    ("fusion", "decoder", "says"),
    [
        (lambda: LayerMix(WIDTH, DEPTH, BLOCKS), "mae", r"MAEDecoder takes 1 latent\(s\), LayerMix gives 4"),
        (
            lambda: LayerMix(WIDTH, DEPTH, BLOCKS),
            "one",
            r"CrossDecoder takes 1 latent\(s\), LayerMix gives 4",
        ),
        (
            lambda: LayerMix(WIDTH, DEPTH, 3),
            "per_block",
            r"CrossDecoder takes 4 latent\(s\), LayerMix gives 3",
        ),
        (lambda: MultiLevelFusion(WIDTH, DEPTH, "all"), "per_block", r"takes 4 .* MultiLevelFusion gives 1"),
    ],
)
def test_crossings_that_do_not_fit_are_refused(fusion, decoder, says):
    with pytest.raises(LaminaError, match=says):
        compose(fusion(), decoder)
