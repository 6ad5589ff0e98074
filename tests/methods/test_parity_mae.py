"""MAE against transformers' ViTMAE with copied weights and the same mask."""

import timm
import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from lamina import MultiLevelFusion, mae
from lamina.core.batch import Batch
from lamina.core.patches import patchify, sincos_2d
from lamina.core.rng import sample_keys
from lamina.core.weight_init import fix_positions

WIDTH, DEPTH, HEADS, PATCH, SIZE = 48, 3, 3, 8, 32
DECODER_WIDTH, DECODER_DEPTH, DECODER_HEADS = 32, 2, 4


def peer(norm_pix: bool) -> ViTMAEForPreTraining:
    config = ViTMAEConfig(
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        image_size=SIZE,
        patch_size=PATCH,
        layer_norm_eps=1e-6,
        decoder_hidden_size=DECODER_WIDTH,
        decoder_num_hidden_layers=DECODER_DEPTH,
        decoder_num_attention_heads=DECODER_HEADS,
        decoder_intermediate_size=4 * DECODER_WIDTH,
        mask_ratio=0.75,
        norm_pix_loss=norm_pix,
    )
    return ViTMAEForPreTraining(config)


def ours(norm_pix: bool):
    vit = timm.create_model(
        "vit_tiny_patch16_224", img_size=SIZE, patch_size=PATCH, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS
    )
    fix_positions(vit)
    return mae(
        vit,
        decoder_width=DECODER_WIDTH,
        decoder_depth=DECODER_DEPTH,
        decoder_heads=DECODER_HEADS,
        norm_pix=norm_pix,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )


def names(peer_state: dict) -> dict[str, list[str]]:
    """Our parameter name -> the peer's, several where ours joins them (query, key, value)."""
    pairs = {
        "encoder.vit.cls_token": ["vit.embeddings.cls_token"],
        "encoder.vit.patch_embed.proj": ["vit.embeddings.patch_embeddings.projection"],
        "encoder.vit.norm": ["vit.layernorm"],
        "decoder.embed": ["decoder.decoder_embed"],
        "decoder.mask_token": ["decoder.mask_token"],
        "decoder.norm": ["decoder.decoder_norm"],
        "decoder.head": ["decoder.decoder_pred"],
    }
    layers = "vit.layers" if any(k.startswith("vit.layers.") for k in peer_state) else "vit.encoder.layer"
    for here, there, depth in (
        ("encoder.vit.blocks", layers, DEPTH),
        ("decoder.blocks", "decoder.decoder_layers", DECODER_DEPTH),
    ):
        for i in range(depth):
            old = f"{there}.{i}.attention.attention.query.weight" in peer_state
            a = f"{there}.{i}.attention"
            qkv = [f"{a}.attention.{n}" for n in ("query", "key", "value")]
            new_qkv = [f"{a}.{n}_proj" for n in "qkv"]
            pairs |= {
                f"{here}.{i}.attn.qkv": qkv if old else new_qkv,
                f"{here}.{i}.attn.proj": [f"{a}.output.dense" if old else f"{a}.o_proj"],
                f"{here}.{i}.norm1": [f"{there}.{i}.layernorm_before"],
                f"{here}.{i}.norm2": [f"{there}.{i}.layernorm_after"],
                f"{here}.{i}.mlp.fc1": [f"{there}.{i}.intermediate.dense" if old else f"{there}.{i}.mlp.fc1"],
                f"{here}.{i}.mlp.fc2": [f"{there}.{i}.output.dense" if old else f"{there}.{i}.mlp.fc2"],
            }
    full = {}
    for here, there in pairs.items():
        for suffix in (".weight", ".bias", ""):
            if there[0] + suffix in peer_state:
                full[here + suffix] = [t + suffix for t in there]
    return full


def joined(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat(tensors) if len(tensors) > 1 else tensors[0]


def compare(dtype: torch.dtype, norm_pix: bool) -> tuple[float, float]:
    """Relative difference of the losses, and of the gradients (to the largest one)."""
    torch.manual_seed(0)
    theirs, method = peer(norm_pix).to(dtype), ours(norm_pix).to(dtype)
    state = dict(theirs.named_parameters())
    pairs = names(state)
    weights = {here: joined([state[t].detach() for t in there]) for here, there in pairs.items()}
    # Biases start at zero and norms at one: move them, so that a mix-up shows.
    for value in weights.values():
        value += 0.02 * torch.randn_like(value)
    for here, there in pairs.items():
        for part, name in zip(weights[here].chunk(len(there)), there, strict=True):
            state[name].data.copy_(part)
    missing, unexpected = method.load_state_dict(weights, strict=False)
    assert not unexpected
    assert missing == ["encoder.vit.pos_embed"]
    # transformers leaves its fixed positions at zero when a model is built from a config; ours are tested
    # against their formula in test_tokens.
    grid = method.encoder.grid
    theirs.vit.embeddings.position_embeddings.data[0, 1:] = sincos_2d(WIDTH, grid)
    theirs.decoder.decoder_pos_embed.data[0, 1:] = sincos_2d(DECODER_WIDTH, grid)
    images = torch.rand(4, 3, SIZE, SIZE, dtype=dtype)
    keys = sample_keys(0, 0, torch.arange(4))
    mask = method.masking(keys, grid)
    ours_loss = method(Batch(images, keys, mask))["loss"]
    ours_loss.backward()
    # The peer hides the patches whose noise is largest.
    their_loss = theirs(images, noise=mask.to(dtype)).loss
    their_loss.backward()
    own = dict(method.named_parameters())
    gradients = [
        ((own[here].grad - joined([state[t].grad for t in there])).abs().max(), own[here].grad.abs().max())
        for here, there in pairs.items()
    ]
    trained = {n for n, p in own.items() if p.requires_grad}
    assert trained == set(pairs), trained ^ set(pairs)
    largest = max(float(size) for _, size in gradients)
    difference = max(float(d) for d, _ in gradients)
    return abs(float(ours_loss.detach() / their_loss.detach()) - 1), difference / largest


def test_equals_transformers_in_float64():
    for norm_pix in (True, False):
        loss, gradient = compare(torch.float64, norm_pix)
        assert loss < 1e-9
        assert gradient < 1e-9


def test_equals_transformers_in_float32():
    loss, gradient = compare(torch.float32, True)
    assert loss < 1e-5
    assert gradient < 1e-5


def test_fusing_only_the_last_layer_is_plain_mae():
    torch.manual_seed(0)
    plain = ours(True)
    fused = mae(
        plain.encoder.vit,
        fusion=MultiLevelFusion(WIDTH, DEPTH, layers=(DEPTH - 1,)),
        decoder_width=DECODER_WIDTH,
        decoder_depth=DECODER_DEPTH,
        decoder_heads=DECODER_HEADS,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    fused.decoder.load_state_dict(plain.decoder.state_dict())
    batch = Batch(torch.rand(2, 3, SIZE, SIZE), sample_keys(0, 0, torch.arange(2)))
    torch.testing.assert_close(plain(batch)["loss"], fused(batch)["loss"], rtol=1e-6, atol=0)


def test_patch_order_is_the_peers():
    images = torch.rand(2, 3, SIZE, SIZE)
    assert torch.equal(patchify(images, (PATCH, PATCH)), peer(True).patchify(images))
