"""Attention: probabilities written out from each module's own queries and keys, closed forms of the measures."""

import json
import math
from dataclasses import replace

import pytest
import timm
import torch
from timm.layers import apply_rot_embed_cat
from torch import nn

from helpers.runs import NAMES_AND_CHANNELS, shaken, stripes
from lamina.analyze.attention import analyze_attention, distances, measure
from lamina.analyze.attention_plot import draw
from lamina.analyze.measures.attention import attention_probabilities, watch_attention
from lamina.analyze.models import Images, ModelOnImages
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.encoder.build import build_vit, wrap_vit
from lamina.encoder.encoder import Encoder
from lamina.encoder.options import EncoderOptions
from lamina.interop.backbone import Backbone

SIZES = {"image_size": (32, 48), "patch_size": 8, "width": 48, "depth": 3, "heads": 4}
ALL_AND_CHANNELS = [
    *NAMES_AND_CHANNELS,
    ("eva02_base_patch14_224", 3),  # queries, keys and values apart; the tiny one has one matrix
    ("beit_base_patch16_224", 3),
]


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


def subject(model, pixels, size=2):
    keys = torch.arange(len(pixels))
    return ModelOnImages(
        model, [Batch(pixels[i : i + size], keys[i : i + size]) for i in range(0, len(pixels), size)]
    )


def without_queries(model):
    """All logits zero: no queries, no keys, no bias."""
    for block in model.encoder.vit.blocks:
        attention = block.attn
        weights = [attention.qkv] if attention.qkv is not None else [attention.q_proj, attention.k_proj]
        for parameter in [p for module in weights for p in module.parameters()]:
            parameter.zero_()
        for extra in ("q_bias", "relative_position_bias_table"):
            if getattr(attention, extra, None) is not None:
                getattr(attention, extra).zero_()
    return model


@pytest.mark.parametrize(("name", "channels"), ALL_AND_CHANNELS)
def test_probabilities_are_those_of_the_modules_own_queries_and_keys(name, channels):
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


def test_relative_positions_that_all_blocks_share():
    options = EncoderOptions(**{**SIZES, "name": "beit_base_patch16_224"}, hide="replace")
    vit = timm.models.beit.Beit(
        img_size=(32, 48), patch_size=8, embed_dim=48, depth=3, num_heads=4, num_classes=0,
        use_abs_pos_emb=False, use_shared_rel_pos_bias=True, global_pool="token",
    )  # fmt: skip
    model, pixels = Backbone(shaken(wrap_vit(vit, options))), images()
    assert vit.rel_pos_bias is not None
    torch.testing.assert_close(attention_probabilities(model, pixels, [1])[0], expected(model, pixels, 1))


@pytest.mark.parametrize(("name", "channels"), ALL_AND_CHANNELS)
def test_uniform_attention_has_the_mean_distance_of_two_patches_and_entropy_log_n(name, channels):
    with torch.no_grad():
        model = without_queries(backbone(name, in_chans=channels))
    found = analyze_attention({"m": subject(model, images(channels=channels))}).models["m"]
    places = [(8 * r, 8 * c) for r in range(4) for c in range(6)]
    mean = sum(math.dist(a, b) for a in places for b in places) / 24**2
    prefix = model.encoder.n_prefix
    assert (found.n_images, found.grid, found.image_size, found.patch) == (3, (4, 6), (32, 48), (8, 8))
    assert found.uniform_distance == pytest.approx(mean)
    assert [layer.layer for layer in found.layers] == [0, 1, 2]
    for layer in found.layers:
        assert layer.distance == pytest.approx([mean] * 4, rel=1e-5)
        assert layer.entropy == pytest.approx([math.log(24)] * 4, rel=1e-5)
        assert layer.entropy_share == pytest.approx([1] * 4, rel=1e-5)
        assert layer.prefix_mass == pytest.approx([prefix / (prefix + 24)] * 4, rel=1e-5)


def test_mean_distance_of_a_line_is_its_closed_form():
    """Of n points in a row, h apart: h (n^2 - 1) / (3 n)."""
    for n, h in ((5, 16), (9, 2)):
        assert float(distances((1, n), (7, h)).mean()) == pytest.approx(h * (n * n - 1) / (3 * n))
        assert float(distances((n, 1), (h, 7)).mean()) == pytest.approx(h * (n * n - 1) / (3 * n))
    apart = distances((2, 3), (4, 10))
    assert apart[0].tolist() == pytest.approx([0, 10, 20, 4, 116**0.5, 416**0.5])


def test_one_hot_attention_has_one_distance_and_no_entropy():
    apart = distances((4, 6), (8, 8)).float()
    own = torch.eye(26).expand(2, 3, -1, -1)  # two prefix tokens
    distance, entropy, taken, looking = measure(own, apart) / 48
    assert distance.tolist() == entropy.tolist() == taken.tolist() == [0, 0, 0]
    assert looking.tolist() == [1, 1, 1]
    corner = torch.zeros(1, 1, 26, 26)
    corner[..., 2] = 0.25  # the first patch, beside three quarters on the class token
    corner[..., 0] = 0.75
    distance, entropy, taken, looking = measure(corner, apart)[:, 0] / 24
    assert float(distance) == pytest.approx(float(apart[0].mean()))
    assert (float(entropy), float(taken), float(looking)) == pytest.approx((0, 0.75, 1))
    blind = corner.clone()
    blind[:, :, 2, 2] = 0  # one query that gives patches nothing
    sums = measure(blind, apart)[:, 0]
    assert float(sums[3]) == 23
    assert float(sums[0]) == pytest.approx(24 * float(distance), rel=1e-5)  # it was 0 px away


class Edit(nn.Module):
    """In place of a norm of queries or keys: (B, heads, T, c)."""

    def __init__(self, edit):
        super().__init__()
        self.edit = edit

    def forward(self, x):
        return self.edit(torch.zeros_like(x))


def test_queries_that_see_no_patch_are_left_out_and_heads_that_see_none_are_refused():
    def first(x):  # the key of the class token alone is not zero
        x[:, :, 0] = 100.0
        return x

    def odd(x):  # the other queries, zero, take of all tokens alike
        x[:, :, 2::2] = 100.0
        return x

    model = backbone(depth=1)
    attention = model.encoder.vit.blocks[0].attn
    attention.q_norm, attention.k_norm = Edit(odd), Edit(first)
    (layer,) = analyze_attention({"m": subject(model, images())}).models["m"].layers
    seeing = distances((4, 6), (8, 8))[0::2].mean()
    assert layer.distance == pytest.approx([float(seeing)] * 4, rel=1e-5)
    assert layer.entropy == pytest.approx([math.log(24)] * 4, rel=1e-5)
    assert layer.prefix_mass == pytest.approx([(1 + 1 / 25) / 2] * 4, rel=1e-5)
    attention.q_norm = Edit(lambda x: x + 100)
    with pytest.raises(LaminaError, match="pays patches no attention"):
        analyze_attention({"m": subject(model, images())})


def test_heads_as_far_as_rows_written_out():
    """By loops over queries and keys, each row over patches alone."""
    model, pixels = backbone("vit_small_patch16_dinov3"), images(2)
    found = analyze_attention({"m": subject(model, pixels, 1)}).models["m"].layers[1]
    rows, p = attention_probabilities(model, pixels, [1])[0].double(), model.encoder.n_prefix
    assert p > 1
    for head in range(4):
        distance = entropy = taken = 0.0
        for image in range(2):
            for q in range(24):
                row = rows[image, head, p + q]
                taken += float(row[:p].sum()) / 48
                for k in range(24):
                    share = float(row[p + k] / row[p:].sum())
                    distance += share * 8 * math.dist(divmod(q, 6), divmod(k, 6)) / 48
                    entropy -= share * math.log(share) / 48
        assert found.distance[head] == pytest.approx(distance, rel=1e-5)
        assert found.entropy[head] == pytest.approx(entropy, rel=1e-5)
        assert found.entropy_share[head] == pytest.approx(entropy / math.log(24), rel=1e-5)
        assert found.prefix_mass[head] == pytest.approx(taken, rel=1e-5)


def test_batches_of_any_size_give_the_same_numbers_and_one_pass_serves_all_layers():
    model, pixels, passes = backbone(), images(7), []
    model.encoder.vit.blocks[0].register_forward_hook(lambda _, args, out: passes.append(len(out)))
    one, other = (analyze_attention({"m": subject(model, pixels, size)}).models["m"] for size in (7, 2))
    assert sum(passes) == 14
    for a, b in zip(one.layers, other.layers, strict=True):
        for name in ("distance", "entropy", "prefix_mass"):
            assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-5)


def test_models_side_by_side(tmp_path):
    models = {
        "plain": backbone(depth=4),
        "registers": backbone("vit_medium_patch16_reg4_gap_256", image_size=(32, 32)),
        "grey": backbone("eva02_tiny_patch14_224", in_chans=1),
    }
    source = stripes(6, 1)
    subjects = {
        name: ModelOnImages(m, Images(source, m.image_size, m.encoder.in_chans, batch_size=4))
        for name, m in models.items()
    }
    result = analyze_attention(subjects)
    read = json.loads(json.dumps(result.to_json()))["models"]
    assert len(read["plain"]["layers"][3]["distance"]) == 4
    assert read["registers"]["image_size"] == [32, 32]
    draw(result).savefig(tmp_path / "attention.svg")
    drawn = (tmp_path / "attention.svg").read_text()
    for text in ("grey", "6 images", "depth as a share", "distance (px)", "nats", "prefix tokens"):
        assert text in drawn
    bare = {"gap": replace(result.models["registers"], n_prefix=0)}
    alone = draw(replace(result, models=bare))
    assert len(alone.axes) == 2
    assert alone.axes[0].get_xlabel() == "block"


def test_what_has_no_distance_is_refused_with_a_sentence():
    model = backbone()
    with pytest.raises(LaminaError, match="at least one model"):
        analyze_attention({})
    with pytest.raises(LaminaError, match="no images"):
        analyze_attention({"m": ModelOnImages(model, [])})
    one = backbone(image_size=(8, 8))
    with pytest.raises(LaminaError, match="a single patch"):
        analyze_attention({"m": subject(one, images(size=(8, 8)))})
    dynamic = wrapped(dynamic_img_size=True)
    mixed = [Batch(images(1)), Batch(images(1, size=(32, 32)))]
    with pytest.raises(LaminaError, match="differ in size"):
        analyze_attention({"m": ModelOnImages(dynamic, mixed)})
    with torch.no_grad():
        model.encoder.vit.blocks[1].attn.qkv.bias += math.nan
    with pytest.raises(LaminaError, match="block 1 of m"):
        analyze_attention({"m": subject(model, images())})
