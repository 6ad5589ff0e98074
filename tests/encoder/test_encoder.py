"""The encoder against timm itself: bit for bit unmasked, and against timm's own patch drop when masked."""

import pytest
import timm
import torch
from timm.layers import PatchDropout
from timm.layers.patch_dropout import PatchDropoutWithIndices
from torch import nn

from lamina.core.errors import LaminaError
from lamina.core.patches import take
from lamina.core.rng import sample_keys
from lamina.encoder.build import build_vit
from lamina.encoder.encoder import Encoder
from lamina.encoder.options import EncoderOptions
from lamina.masking.random import RandomMasking

NAMES = [
    "vit_tiny_patch16_224",
    "deit3_small_patch16_224",
    "vit_base_patch16_clip_224",
    "vit_medium_patch16_reg4_gap_256",
    "vit_small_patch16_18x2_224",
    "eva02_tiny_patch14_224",
    "vit_small_patch16_rope_224",
    "vit_small_patch16_rope_mixed_224",
    "vit_small_patch16_rope_ape_224",
    "vit_small_patch16_dinov3",
]


def small(name: str):
    vit = build_vit(EncoderOptions(name=name, image_size=(32, 48), patch_size=8, width=96, depth=3, heads=3))
    torch.manual_seed(0)
    for parameter in vit.parameters():  # nothing may hide behind a zero or a one
        parameter.data += 0.02 * torch.randn_like(parameter)
    return vit.eval()


@pytest.mark.parametrize("name", NAMES)
def test_unmasked_equals_timm_bit_for_bit(name):
    vit = small(name)
    encoder = Encoder(vit).eval()
    images = torch.rand(2, 3, 32, 48)
    expected = vit.forward_features(encoder.normalise(images))
    assert torch.equal(vit.norm(encoder(images, [2])[0]), expected)


class KeepThese(nn.Module):
    """In the place of timm's patch drop: the same gather, with chosen indices."""

    def __init__(self, vit, index):
        super().__init__()
        self.prefix, self.index = vit.num_prefix_tokens, index
        self.gives_indices = isinstance(vit, timm.models.eva.Eva)

    def forward(self, x):
        kept = torch.cat([x[:, : self.prefix], take(x[:, self.prefix :], self.index)], dim=1)
        return (kept, self.index) if self.gives_indices else kept


@pytest.mark.parametrize("name", NAMES)
def test_masked_equals_timms_patch_drop(name):
    vit = small(name)
    encoder = Encoder(vit).eval()
    images = torch.rand(3, 3, 32, 48)
    masking = RandomMasking(0.5)
    mask = masking(sample_keys(0, 0, torch.arange(3)), encoder.grid)
    index = torch.stack([(~row).nonzero()[:, 0] for row in mask])
    before = encoder(images, [-1, 0, 2], mask, masking.n_visible(encoder.grid))
    vit.patch_drop = KeepThese(vit, index)
    expected = vit.forward_features(encoder.normalise(images))
    torch.testing.assert_close(vit.norm(before[2]), expected, rtol=1e-5, atol=1e-5)
    assert [len(t[0]) for t in before] == [vit.num_prefix_tokens + index.shape[1]] * 3


def test_block_outputs_equal_timms_intermediates():
    vit = small("vit_tiny_patch16_224")
    encoder = Encoder(vit).eval()
    images = torch.rand(2, 3, 32, 48)
    _, theirs = vit.forward_intermediates(
        encoder.normalise(images), indices=[0, 2], return_prefix_tokens=True, output_fmt="NLC"
    )
    for ours, (patches, prefix) in zip(encoder(images, [0, 2]), theirs, strict=True):
        assert torch.equal(ours, torch.cat([prefix, patches], dim=1))


def test_dynamic_image_size_takes_another_rectangle():
    vit = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=8,
        embed_dim=96,
        depth=2,
        num_heads=3,
        dynamic_img_size=True,
    ).eval()
    encoder = Encoder(vit).eval()
    images = torch.rand(2, 3, 40, 24)
    assert torch.equal(vit.norm(encoder(images, [1])[0]), vit.forward_features(encoder.normalise(images)))
    mask = RandomMasking(0.4)(sample_keys(0, 0, torch.arange(2)), (5, 3))
    assert encoder(images, [1], mask, 9)[0].shape == (2, 1 + 9, 96)


def test_replace_puts_the_mask_token_at_hidden_patches():
    vit = small("vit_tiny_patch16_224")
    encoder = Encoder(vit, hide="replace").eval()
    encoder.mask_token.data.fill_(3.0)
    images = torch.rand(1, 3, 32, 48)
    mask = torch.zeros(1, 24, dtype=torch.bool)
    mask[0, [2, 5]] = True
    embedded = vit.patch_embed(encoder.normalise(images))
    embedded[0, [2, 5]] = 3.0
    assert torch.equal(encoder(images, [-1], mask)[0], vit._pos_embed(embedded))
    # What stands in the hidden pixels cannot be seen.
    changed = images.clone()
    changed[..., :8, 16:24] = 0
    assert torch.equal(encoder(images, [2], mask)[0], encoder(changed, [2], mask)[0])


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3"])
def test_gradients_of_prefix_tokens_lie_as_buckets_do(name):
    """DistributedDataParallel warns of others, and copies them."""
    vit = small(name)
    Encoder(vit)(torch.rand(2, 3, 32, 48), [2], torch.arange(24).expand(2, -1) > 11, 12)[0].sum().backward()
    for token in (vit.cls_token, vit.reg_token):
        if token is not None:
            assert token.grad.stride() == torch.empty(token.shape).stride()


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224"])
@pytest.mark.parametrize("learned", [False, True])
def test_gradients_under_a_mask_are_those_of_timms_patch_drop(name, learned):
    vit = small(name)
    vit.pos_embed.requires_grad_(learned)
    images, index = torch.rand(2, 3, 32, 48), torch.arange(12).expand(2, -1)
    encoder, gradients = Encoder(vit), []
    encoder(images, [2], torch.arange(24).expand(2, -1) > 11, 12)[0].square().sum().backward()
    gradients.append([p.grad for p in vit.parameters() if p.grad is not None])
    vit.zero_grad()
    vit.patch_drop = KeepThese(vit, index)
    vit.norm = nn.Identity()
    vit.forward_features(encoder.normalise(images)).square().sum().backward()
    gradients.append([p.grad for p in vit.parameters() if p.grad is not None])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * theirs.abs().max().item())


def test_activation_checkpointing_changes_nothing():
    vit = small("vit_tiny_patch16_224").train()
    images = torch.rand(2, 3, 32, 48)
    gradients = []
    for flag in (False, True):
        vit.zero_grad()
        Encoder(vit, activation_checkpointing=flag)(images, [2])[0].square().sum().backward()
        gradients.append(vit.blocks[0].attn.qkv.weight.grad.clone())
    assert torch.equal(*gradients)


def test_stored_pixels_equal_floats():
    encoder = Encoder(small("vit_tiny_patch16_224"))
    stored = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    assert torch.equal(encoder(stored, [2])[0], encoder(stored.float() / 255, [2])[0])


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: timm.create_model("beit_base_patch16_224"), "use_fc_norm=False"),
        (lambda: timm.create_model("vit_relpos_small_patch16_224"), "positions that need the full grid"),
        (lambda: timm.create_model("vit_tiny_patch16_224", global_pool="avg"), "final norm"),
        (lambda: timm.create_model("vit_tiny_patch16_224", patch_drop_rate=0.5), "at random"),
        (lambda: timm.create_model("vit_tiny_r_s16_p8_224"), "convolution"),
        (lambda: nn.Linear(2, 2), "not a VisionTransformer, Eva or Beit of timm"),
    ],
)
def test_refuses_with_a_sentence(build, says):
    with pytest.raises(LaminaError, match=says):
        Encoder(build())


def test_refuses_images_it_cannot_take():
    encoder = Encoder(small("vit_tiny_patch16_224"))
    with pytest.raises(LaminaError, match="1 channel,"):
        encoder(torch.rand(1, 1, 32, 48), [2])
    with pytest.raises(LaminaError, match="set image_size"):
        encoder(torch.rand(1, 3, 48, 48), [2])
    with pytest.raises(LaminaError, match="must be block numbers from -1"):
        encoder(torch.rand(1, 3, 32, 48), [3])


def test_timms_patch_drop_classes_are_the_ones_refused():
    """The guard reads `prob` of these classes."""
    assert PatchDropout(0.5).prob == PatchDropoutWithIndices(0.5).prob == 0.5


def test_the_residual_stream_has_timms_precision_under_autocast():
    vit = small("vit_tiny_patch16_224")
    encoder = Encoder(vit).eval()
    images = torch.rand(2, 3, 32, 48)
    mask = RandomMasking(0.5)(sample_keys(0, 0, torch.arange(2)), encoder.grid)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        theirs = vit._pos_embed(vit.patch_embed(encoder.normalise(images)))
        taps = encoder(images, [-1, 2], mask, 12) + encoder(images, [-1, 2])
    assert {t.dtype for t in taps} == {theirs.dtype} == {torch.float32}
