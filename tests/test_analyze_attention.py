"""Attention: probabilities written out from each module's own queries and keys, closed forms of the measures."""

from dataclasses import replace

import pytest
import timm
import torch
from timm.layers import apply_rot_embed_cat
from torch import nn

from evaluate_toys import NAMES, shaken
from lamina.analyze.attention_maps import attention_probabilities, watch_attention
from lamina.encoder import Encoder, EncoderOptions, build_vit, wrap_vit
from lamina.errors import LaminaError
from lamina.interop import Backbone

SIZES = {"image_size": (32, 48), "patch_size": 8, "width": 48, "depth": 3, "heads": 4}
ALL = [
    *NAMES,
    "eva02_base_patch14_224",
    "beit_base_patch16_224",
]  # of Evas: queries, keys, values in one, and apart


def backbone(name="vit_tiny_patch16_224", **encoder):
    options = EncoderOptions(**{**SIZES, "name": name, "mean": None, "std": None, **encoder})
    if name.startswith("beit"):
        options = replace(options, hide="replace")
    return Backbone(shaken(wrap_vit(build_vit(options), options)))


def wrapped(**settings):
    """timm's VisionTransformer with settings that no name has."""
    vit = timm.models.vision_transformer.VisionTransformer(
        img_size=(32, 48), patch_size=8, embed_dim=48, depth=3, num_heads=4, num_classes=0, **settings
    )
    return Backbone(shaken(Encoder(vit)))


def images(n=3, channels=3, seed=0, size=(32, 48)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, *size), dtype=torch.uint8, generator=generator)


def written_out(attention, tokens, rope=None, shared=None):
    """Softmax of scaled products, from a module's input and own weights."""
    heads, (b, t, _) = attention.num_heads, tokens.shape
    if attention.qkv is None:
        q, k = attention.q_proj(tokens), attention.k_proj(tokens)
    else:
        bias = attention.qkv.bias
        if getattr(attention, "q_bias", None) is not None:
            bias = torch.cat([attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias])
        q, k, _ = (tokens @ attention.qkv.weight.T + (0 if bias is None else bias)).chunk(3, dim=-1)
    q, k = (x.view(b, t, heads, -1).transpose(1, 2) for x in (q, k))
    if hasattr(attention, "q_norm"):
        q, k = attention.q_norm(q), attention.k_norm(k)
    if rope is not None:
        p, half = attention.num_prefix_tokens, getattr(attention, "rotate_half", False)
        q, k = (
            torch.cat([x[:, :, :p], apply_rot_embed_cat(x[:, :, p:], rope, half=half)], 2) for x in (q, k)
        )
    logits = torch.einsum("bhqc,bhkc->bhqk", q, k) / q.shape[-1] ** 0.5
    table = getattr(attention, "relative_position_bias_table", None)
    if table is not None:
        logits = logits + table[attention.relative_position_index].permute(2, 0, 1)
    if shared is not None:
        logits = logits + shared
    weights = (logits - logits.amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True)


def expected(model, pixels, layer):
    """By the input and the arguments that the module is called with."""
    seen = {}

    def keep(module, args, kwargs):
        rope = kwargs.get("rope", args[1] if len(args) > 1 and not hasattr(module, "window_size") else None)
        shared = kwargs.get("shared_rel_pos_bias") if hasattr(module, "window_size") else None
        seen["found"] = written_out(module, args[0], rope, shared)

    handle = model.encoder.vit.blocks[layer].attn.register_forward_pre_hook(keep, with_kwargs=True)
    model.encoder(pixels, [layer])
    handle.remove()
    return seen["found"]


def state(model):
    return [
        (name, module.training, getattr(module, "fused_attn", None), len(module._forward_pre_hooks))
        for name, module in model.named_modules()
    ]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_probabilities_are_those_of_the_modules_own_queries_and_keys(name, channels):
    if channels != 3 and name not in NAMES[:2]:
        pytest.skip("channels concern the embedding alone")
    model, pixels = backbone(name, in_chans=channels), images(channels=channels)
    before = state(model)
    output = model.encoder(pixels, [2])[0]
    found = attention_probabilities(model, pixels, [2, 0])
    assert state(model) == before
    assert any(fused for _, _, fused, _ in before)  # else nothing was restored
    assert torch.equal(model.encoder(pixels, [2])[0], output)
    tokens = model.encoder.n_prefix + 24
    for layer, rows in zip([2, 0], found, strict=True):
        assert rows.shape == (3, 4, tokens, tokens)
        torch.testing.assert_close(rows, expected(model, pixels, layer), rtol=1e-4, atol=1e-6)
        assert rows.std() > 1e-4  # not the uniform distribution, which would hide much


def test_probabilities_of_normed_queries_and_of_parallel_blocks():
    model, pixels = wrapped(qk_norm=True, reg_tokens=2), images()
    torch.testing.assert_close(attention_probabilities(model, pixels, [1])[0], expected(model, pixels, 1))
    parallel = wrapped(block_fn=timm.models.vision_transformer.ParallelScalingBlock)
    (rows,) = attention_probabilities(parallel, pixels, [2])
    torch.testing.assert_close(rows.sum(-1), torch.ones(3, 4, 25))
    assert rows.std() > 1e-4


def test_probabilities_times_values_are_what_fused_attention_gives():
    model, pixels, seen = backbone("eva02_base_patch14_224"), images(), {}
    attention = model.encoder.vit.blocks[1].attn
    handle = attention.proj.register_forward_pre_hook(lambda _, args: seen.update(mixed=args[0]))
    other = attention.register_forward_pre_hook(lambda _, args: seen.update(tokens=args[0]))
    model.encoder(pixels, [1])
    handle.remove()
    other.remove()
    values = attention.v_proj(seen["tokens"]).view(3, 25, 4, -1).transpose(1, 2)
    mixed = (attention_probabilities(model, pixels, [1])[0] @ values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention.norm(mixed), seen["mixed"], rtol=1e-4, atol=1e-5)


def test_the_network_is_restored_after_a_failure():
    model = backbone()
    before = state(model)

    def fail(layer, rows):
        raise KeyError(layer)

    with pytest.raises(KeyError):
        watch_attention(model.encoder, images(), [1], fail)
    assert state(model) == before


def test_attention_that_is_no_softmax_over_tokens_is_refused_with_a_sentence():
    model = backbone()
    for layers in ((-1,), (3,), ()):
        with pytest.raises(LaminaError, match=r"blocks within 0\.\.2"):
            attention_probabilities(model, images(), layers)
    several = wrapped(block_fn=timm.models.vision_transformer.ParallelThingsBlock)
    model.encoder.vit.blocks[1].attn = nn.Identity()
    for refused in (model, several):
        with pytest.raises(LaminaError, match="not one softmax over all tokens"):
            attention_probabilities(refused, images(), [1])
