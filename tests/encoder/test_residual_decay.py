"""Decayed shortcuts against their equation, and folded into plain timm."""

from dataclasses import replace

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.eva import Eva
from timm.models.vision_transformer import ResPostBlock, VisionTransformer
from torch import nn

from lamina.core.errors import LaminaError
from lamina.core.rng import sample_keys
from lamina.core.weight_init import zero_branches
from lamina.encoder.build import build_vit
from lamina.encoder.encoder import Encoder
from lamina.encoder.options import EncoderOptions
from lamina.encoder.residual_decay import folded, products, shortcut_factors
from lamina.masking.random import RandomMasking

LEAST = 0.6
NAMES = [
    "vit_tiny_patch16_224",
    "deit3_small_patch16_224",  # layer scale
    "vit_base_patch16_clip_224",  # a norm before the blocks
    "vit_small_patch16_rope_mixed_224",
    "eva02_tiny_patch14_224",  # rotary, swiglu
    "vit_small_patch16_dinov3",  # layer scale in Eva, registers
    "beit_base_patch16_224",
]


def small(name: str, **changes) -> nn.Module:
    options = EncoderOptions(name=name, image_size=(32, 48), patch_size=8, width=96, depth=3, heads=3)
    vit = build_vit(replace(options, **changes))
    torch.manual_seed(0)
    for parameter in vit.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    for name in ("cls_token", "reg_token", "pos_embed"):  # a stream of about one, as in a trained network
        if getattr(vit, name, None) is not None:
            torch.nn.init.normal_(getattr(vit, name))
    return vit.eval()


def without_epsilon(vit: nn.Module) -> nn.Module:
    for module in vit.modules():
        if hasattr(module, "eps"):
            module.eps = 0.0
    return vit.double()


def test_factors_fall_linearly_over_all_shortcuts():
    found = shortcut_factors(12, 0.6)
    expected = torch.linspace(1, 0.6, 24, dtype=torch.float64).view(12, 2)
    torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), expected)
    assert found[0][0] == 1
    assert found[-1][1] == pytest.approx(0.6)
    # The paper: what is left of the input lies in [1e-3, 1e-2) where ViT-B does best.
    assert 1e-3 <= products(found)[-1] < 1e-2
    assert products(found)[-1] == pytest.approx(expected.prod().item())


def test_a_decayed_encoder_is_the_equation():
    """x <- a x + f(LN(x)) for attention and MLP, from the weights alone."""
    vit = small("vit_tiny_patch16_224").double()
    encoder = Encoder(vit, residual_decay=LEAST).double().eval()
    images = torch.rand(2, 3, 32, 48, dtype=torch.float64)
    x, *taps = encoder(images, [-1, 0, 1, 2])
    w = vit.state_dict()
    for i, a in enumerate(torch.linspace(1, LEAST, 6, dtype=torch.float64).view(3, 2)):
        p = {name.removeprefix(f"blocks.{i}."): t for name, t in w.items() if name.startswith(f"blocks.{i}.")}

        def norm(x, which, p=p):
            x = x - x.mean(-1, keepdim=True)
            return (
                x / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt() * p[f"{which}.weight"]
                + p[f"{which}.bias"]
            )

        q, k, v = F.linear(norm(x, "norm1"), p["attn.qkv.weight"], p["attn.qkv.bias"]).chunk(3, dim=-1)
        q, k, v = (t.unflatten(-1, (3, 32)).transpose(1, 2) for t in (q, k, v))
        y = ((q @ k.mT / 32**0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = a[0] * x + y @ p["attn.proj.weight"].T + p["attn.proj.bias"]
        y = F.gelu(norm(x, "norm2") @ p["mlp.fc1.weight"].T + p["mlp.fc1.bias"])
        x = a[1] * x + y @ p["mlp.fc2.weight"].T + p["mlp.fc2.bias"]
        torch.testing.assert_close(taps[i], x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_folded_weights_in_plain_timm_give_the_same_normed_features(name):
    vit = small(name)
    encoder = Encoder(vit, residual_decay=LEAST).eval()
    images = torch.rand(2, 3, 32, 48)
    plain = encoder.plain_vit()
    assert plain is not vit
    assert Encoder(vit).plain_vit() is vit
    x, expected = encoder.normalise(images), vit.norm(encoder(images, [2])[0])
    # The epsilon's share of a variance of about one, on features that reach 3, through six branches.
    torch.testing.assert_close(plain.forward_features(x), expected, rtol=0, atol=100 * vit.norm.eps)
    unfolded = vit.forward_features(x)
    assert (unfolded - expected).abs().max() > 0.05
    # Without the norms' epsilon it is exact: y_l = x_l / c_l at every tap.
    without_epsilon(vit), without_epsilon(plain), encoder.double()
    plain.load_state_dict(encoder.timm_state(), strict=True)
    taps, scales = encoder(images.double(), [-1, 0, 1, 2]), encoder.tap_scales([-1, 0, 1, 2])
    theirs = Encoder(plain).double().eval()(images.double(), [-1, 0, 1, 2])
    for ours, scale, other in zip(taps, scales, theirs, strict=True):
        torch.testing.assert_close(ours / scale, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_folding_goes_back(name):
    vit = small(name).double()
    encoder = Encoder(vit, residual_decay=LEAST)
    again = folded(vit, encoder.factors, encoder.timm_state(), back=True)
    for key, tensor in vit.state_dict().items():
        torch.testing.assert_close(again[key], tensor, rtol=1e-12, atol=0)
    assert not torch.equal(encoder.timm_state()["blocks.2.attn.qkv.weight"], torch.zeros(1))
    changed = {k for k, t in encoder.timm_state().items() if not torch.equal(t, vit.state_dict()[k])}
    assert all("attn.proj" in k or "mlp.fc2" in k or "gamma" in k for k in changed)
    assert changed


def test_a_factor_of_one_is_the_plain_encoder_bit_for_bit_with_drop_path():
    vit = small("deit3_small_patch16_224", drop_path=0.5).train()
    images = torch.rand(4, 3, 32, 48)
    outputs = []
    for least in (None, 1.0):
        torch.manual_seed(3)
        outputs.append(Encoder(vit, residual_decay=least).train()(images, [0, 1, 2]))
    for plain, decayed in zip(*outputs, strict=True):
        assert torch.equal(plain, decayed)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch16_rope_mixed_224"])
def test_checkpointing_changes_nothing_under_a_mask_and_drop_path(name):
    vit = small(name, drop_path=0.3).train()
    masking = RandomMasking(0.5)
    mask = masking(sample_keys(0, 0, torch.arange(2)), (4, 6))
    images, gradients = torch.rand(2, 3, 32, 48), []
    for flag in (False, True):
        vit.zero_grad()
        torch.manual_seed(5)
        encoder = Encoder(vit, activation_checkpointing=flag, residual_decay=LEAST).train()
        encoder(images, [2], mask, 12)[0].square().sum().backward()
        gradients.append(vit.blocks[0].attn.qkv.weight.grad.clone())
    assert gradients[0].any()
    assert torch.equal(*gradients)


def test_autocast_keeps_the_residual_stream_in_single_precision():
    encoder = Encoder(small("vit_tiny_patch16_224"), residual_decay=LEAST).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert encoder(torch.rand(1, 3, 32, 48), [2])[0].dtype == torch.float32


def test_checkpoints_say_that_shortcuts_decay_and_only_theirs():
    vit = small("vit_tiny_patch16_224")
    decayed = Encoder(vit, residual_decay=LEAST).state_dict()
    assert set(decayed) - set(Encoder(vit).state_dict()) == {"shortcuts"}
    with pytest.raises(RuntimeError, match="shortcuts"):
        Encoder(vit).load_state_dict(decayed)
    assert Encoder(vit).timm_state().keys() == vit.state_dict().keys()


def post_norm() -> nn.Module:
    return VisionTransformer(img_size=32, embed_dim=48, depth=1, num_heads=3, block_fn=ResPostBlock)


@pytest.mark.parametrize(
    ("build", "least", "says"),
    [
        (post_norm, 0.6, "ResPostBlock"),
        (lambda: Eva(img_size=32, embed_dim=48, depth=1, num_heads=3, global_pool="token", use_post_norm=True), 0.6, "EvaBlockPostNorm"),
        (lambda: timm.create_model("vit_small_patch16_18x2_224", depth=1), 0.6, "ParallelThingsBlock"),
        (lambda: small("vit_tiny_patch16_224"), 0.0, "above 0 and at most 1"),
        (lambda: small("vit_tiny_patch16_224"), 1.5, "at most 1"),
        (lambda: timm.create_model("vit_tiny_patch16_224", depth=1, norm_layer=nn.BatchNorm1d), 0.6, "BatchNorm1d"),
    ],
)  # fmt: skip
def test_what_cannot_be_folded_is_refused(build, least, says):
    with pytest.raises(LaminaError, match=says):
        Encoder(build(), residual_decay=least)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224", "beit_base_patch16_224"])
def test_branches_that_start_at_zero_leave_the_shortcuts_alone(name):
    vit = build_vit(EncoderOptions(name=name, image_size=(32, 32), patch_size=8, width=96, depth=3, heads=3))
    zero_branches(vit)
    encoder = Encoder(vit, residual_decay=LEAST).eval()
    first, last = encoder(torch.rand(1, 3, 32, 32), [-1, 2])
    torch.testing.assert_close(last, first * products(encoder.factors)[-1])
