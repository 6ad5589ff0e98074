"""timm's Beit as an encoder: bit for bit timm's own forward, and BEiT's way of hiding patches."""

import math
from dataclasses import replace

import pytest
import timm
import torch

from lamina.core.errors import LaminaError
from lamina.core.weight_init import init_vit_simmim
from lamina.encoder.build import build_vit, wrap_vit
from lamina.encoder.encoder import Encoder
from lamina.encoder.options import EncoderOptions

KINDS = [None, "per_block", "shared", "none"]
PUBLISHED = EncoderOptions(
    name="beit_base_patch16_224", relative_positions="shared", layer_scale=0.1, hide="replace"
)
SMALL = replace(PUBLISHED, image_size=(32, 48), patch_size=8, width=96, depth=3, heads=3)


def small(kind="shared", **changes):
    vit = build_vit(replace(SMALL, relative_positions=kind, **changes))
    torch.manual_seed(0)
    for parameter in vit.parameters():  # biases start at zero, and nothing may hide behind it
        parameter.data += 0.05 * torch.randn_like(parameter)
    return vit.eval()


def one_mask(*hidden: int):
    mask = torch.zeros(1, 24, dtype=torch.bool)
    mask[0, list(hidden)] = True
    return mask


@pytest.mark.parametrize("kind", KINDS)
def test_unmasked_equals_timm_bit_for_bit_and_so_do_taps(kind):
    vit = small(kind)
    encoder = Encoder(vit, hide="replace").eval()
    images = torch.rand(2, 3, 32, 48)
    normalised = encoder.normalise(images)
    taps = encoder(images, [0, 2])
    assert torch.equal(vit.norm(taps[1]), vit.forward_features(normalised))
    _, theirs = vit.forward_intermediates(
        normalised, indices=[0, 2], return_prefix_tokens=True, output_fmt="NLC"
    )
    for ours, (patches, prefix) in zip(taps, theirs, strict=True):
        assert torch.equal(ours, torch.cat([prefix, patches], dim=1))


def test_the_positions_are_those_that_were_asked_for():
    per_block, shared, none = (small(kind) for kind in KINDS[1:])
    assert (shared.rel_pos_bias is not None, none.rel_pos_bias, per_block.rel_pos_bias) == (True, None, None)
    tables = [
        vit.blocks[0].attn.relative_position_bias_table is not None for vit in (per_block, shared, none)
    ]
    assert tables == [True, False, False]
    assert [vit.pos_embed is not None for vit in (per_block, shared, none)] == [False, False, True]
    # A distance of rows and columns has one number for each head; the class token has three.
    assert shared.rel_pos_bias.relative_position_bias_table.shape == ((2 * 4 - 1) * (2 * 6 - 1) + 3, 3)


def test_the_published_pre_training_network():
    with torch.device("meta"):
        vit = build_vit(PUBLISHED)
    expected = 12 * (12 * 768**2 + 13 * 768 - 768 + 2 * 768)  # blocks: no bias of keys, two layer scales
    expected += 768 + 768 * 768 + 768 + 2 * 768 + (27 * 27 + 3) * 12  # class token, patches, norm, table
    assert sum(p.numel() for p in vit.parameters()) == expected


def test_mask_tokens_stand_where_patches_were_embedded():
    """x m + (1 - m) w before the class token, as BEiT writes it."""
    vit = small()
    encoder = Encoder(vit, hide="replace").eval()
    torch.nn.init.normal_(encoder.mask_token)
    images, mask = torch.rand(1, 3, 32, 48), one_mask(2, 5)
    w = mask[..., None].float()
    x = vit.patch_embed(encoder.normalise(images)) * (1 - w) + encoder.mask_token * w
    x = torch.cat([vit.cls_token, x], dim=1)
    embedded, last = encoder(images, [-1, 2], mask)
    torch.testing.assert_close(embedded, x, rtol=0, atol=0)
    for block in vit.blocks:
        x = block(x, shared_rel_pos_bias=vit.rel_pos_bias())
    assert torch.equal(last, x)
    changed = images.clone()
    changed[..., :8, 16:24] = 0
    assert torch.equal(last, encoder(changed, [2], mask)[0])


def test_a_shared_bias_is_added_to_the_scores_of_every_block():
    """Attention written out: softmax(q k / sqrt(d) + b[row distance, column distance])."""
    vit = small().double()
    encoder = Encoder(vit, hide="replace").double().eval()
    images = torch.rand(1, 3, 32, 48, dtype=torch.float64)
    x, after = encoder(images, [-1, 0])
    block, table = vit.blocks[0], vit.rel_pos_bias.relative_position_bias_table
    bias = torch.zeros(3, 25, 25, dtype=torch.float64)
    for i in range(24):
        for j in range(24):
            rows, columns = i // 6 - j // 6 + 3, i % 6 - j % 6 + 5
            bias[:, 1 + i, 1 + j] = table[rows * 11 + columns]
    bias[:, 0, :], bias[:, :, 0], bias[:, 0, 0] = table[-3, :, None], table[-2, :, None], table[-1]
    y = block.norm1(x)
    q, k, v = (block.attn.qkv(y)).unflatten(-1, (3, 3, 32)).permute(2, 0, 3, 1, 4)
    q, v = q + block.attn.q_bias.view(3, 1, 32), v + block.attn.v_bias.view(3, 1, 32)
    y = (q @ k.mT / math.sqrt(32) + bias).softmax(-1) @ v
    x = x + block.gamma_1 * block.attn.proj(y.transpose(1, 2).flatten(2))
    x = x + block.gamma_2 * block.mlp(block.norm2(x))
    torch.testing.assert_close(after, x, rtol=1e-10, atol=1e-10)


def test_dropping_is_refused_but_whole_images_are_taken():
    encoder = Encoder(small(), hide="drop").eval()
    assert encoder(torch.rand(1, 3, 32, 48), [2])[0].shape == (1, 25, 96)
    with pytest.raises(LaminaError, match="need the full grid"):
        encoder(torch.rand(1, 3, 32, 48), [2], one_mask(1), 23)
    with pytest.raises(LaminaError, match="need the full grid"):
        encoder.check_hiding()
    Encoder(small(), hide="replace").check_hiding()


@pytest.mark.parametrize("kind", ["shared", "per_block"])
def test_gradients_reach_every_parameter_and_checkpointing_changes_none(kind):
    vit = small(kind).train()
    images = torch.rand(2, 3, 32, 48)
    found = []
    for flag in (False, True):
        vit.zero_grad()
        encoder = Encoder(vit, "replace", activation_checkpointing=flag).train()
        encoder.norm(encoder(images, [2], one_mask(3, 4).expand(2, -1))[0]).pow(3).sum().backward()
        found.append([p.grad.clone() for p in vit.parameters()])
        assert encoder.mask_token.grad.any()
    for name, plain, again in zip(dict(vit.named_parameters()), *found, strict=True):
        assert plain.any(), name
        assert torch.equal(plain, again), name


def test_autocast_keeps_the_residual_stream_in_single_precision():
    encoder = Encoder(small(), hide="replace").eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        taps = encoder(torch.rand(1, 3, 32, 48), [-1, 2], one_mask(3))
    assert {tap.dtype for tap in taps} == {torch.float32}


def test_initialisation_is_beits():
    vit = build_vit(replace(SMALL, width=192, relative_positions="per_block"))
    torch.manual_seed(1)
    init_vit_simmim(vit)
    for layer, block in enumerate(vit.blocks, start=1):
        for matrix, scale in (
            (block.attn.qkv, 1.0),
            (block.mlp.fc1, 1.0),
            (block.attn.proj, math.sqrt(2 * layer)),
            (block.mlp.fc2, math.sqrt(2 * layer)),
        ):
            assert matrix.weight.std().item() == pytest.approx(0.02 / scale, rel=0.03)
        assert not block.attn.relative_position_bias_table.any()
        assert block.gamma_1.unique().tolist() == block.gamma_2.unique().tolist() == [pytest.approx(0.1)]
    assert vit.cls_token.std().item() == pytest.approx(0.02, rel=0.2)
    assert vit.patch_embed.proj.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert not vit.patch_embed.proj.bias.any()
    absolute = build_vit(replace(SMALL, relative_positions="none"))
    init_vit_simmim(absolute)
    assert absolute.pos_embed.requires_grad
    assert absolute.pos_embed.std().item() == pytest.approx(0.02, rel=0.1)


def test_relative_positions_are_a_beits_alone():
    with pytest.raises(LaminaError, match="no relative positions"):
        build_vit(EncoderOptions(relative_positions="shared"))
    build_vit(EncoderOptions(name="vit_tiny_patch16_224", relative_positions="none", depth=1))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224", "beit_base_patch16_224"])
def test_layer_scale_starts_where_it_was_asked(name):
    options = replace(SMALL, name=name, relative_positions=None, layer_scale=0.25)
    state = build_vit(options).state_dict()
    scales = [tensor for key, tensor in state.items() if "gamma" in key]
    assert len(scales) == 2 * 3
    assert torch.equal(torch.cat(scales), torch.full((6 * 96,), 0.25))
    if not name.startswith("eva"):
        none = build_vit(replace(options, layer_scale=0.0)).state_dict()
        assert not [key for key in none if "gamma" in key]
    with pytest.raises(LaminaError, match="layer_scale"):
        build_vit(replace(options, layer_scale=-1.0))


def test_wrapping_follows_the_options():
    encoder = wrap_vit(small(), replace(SMALL, mean=(0.1, 0.2, 0.3), activation_checkpointing=True))
    assert (encoder.hide, encoder.n_prefix, encoder.n_class) == ("replace", 1, 1)
    assert encoder.activation_checkpointing
    assert encoder.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    with pytest.raises(LaminaError, match="measured"):
        wrap_vit(small(), replace(SMALL, mean="auto"))


def test_timm_names_pass_through():
    """What `create_model` is given is what timm's class calls it."""
    vit = timm.create_model(
        "beit_base_patch16_224", img_size=32, embed_dim=48, depth=1, num_heads=3, use_fc_norm=False,
        use_rel_pos_bias=False, use_shared_rel_pos_bias=True, use_abs_pos_emb=False, init_values=0.1, num_classes=0,
    )  # fmt: skip
    ours = build_vit(replace(PUBLISHED, image_size=(32, 32), width=48, depth=1, heads=3))
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in vit.state_dict().items()
    }
