"""Teachers: features and attention against timm's own, grids, precision, and that they stay as they were."""

import pytest
import timm
import torch
import torch.nn.functional as F

from lamina.core.errors import LaminaError
from lamina.core.frozen import identify, weights_sha256
from lamina.methods import eva
from lamina.targets.teacher import Teacher

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def vit(name: str = "vit_tiny_patch16_224", **changes):
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 0}
    return timm.create_model(name, **(sizes | changes))


def normalised(images):
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "vit_base_patch16_clip_224",
        "eva02_tiny_patch14_224",
        "vit_medium_patch16_reg4_gap_256",
    ],
)
def test_features_are_timms_own(name):
    net = vit(name, patch_size=8)
    images = torch.rand(2, 3, 32, 32)
    found, scores = Teacher(net, MEAN, STD, (4, 4))(images)
    expected = net.forward_features(normalised(images))[:, net.num_prefix_tokens :]
    assert torch.equal(found, net.fc_norm(expected))
    assert scores is None


def test_projected_features_pass_the_head():
    net = vit("vit_base_patch16_clip_224", num_classes=10)
    images = torch.rand(2, 3, 32, 32)
    teacher = Teacher(net, MEAN, STD, (4, 4), projected=True)
    expected = net.head(net.forward_features(normalised(images))[:, 1:])
    assert teacher.width == 10
    assert torch.equal(teacher(images)[0], expected)
    with pytest.raises(LaminaError, match="no projection"):
        Teacher(vit(), MEAN, STD, (4, 4), projected=True)


def test_scores_are_the_class_tokens_attention():
    """softmax(q k / sqrt(d)) of the last block, written out; mean over heads; patches alone, sum one."""
    net = vit()
    images = torch.rand(3, 3, 32, 32)
    _, scores = Teacher(net, MEAN, STD, (4, 4), scores=True)(images)
    block = net.blocks[-1]
    x = net.norm_pre(net._pos_embed(net.patch_embed(normalised(images))))
    x = block.norm1(net.blocks[0](x))
    q, k, _ = block.attn.qkv(x).reshape(3, 17, 3, 2, 12).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-2, -1) / 12**0.5).softmax(-1).mean(1)[:, 0, 1:]
    torch.testing.assert_close(scores, weights / weights.sum(1, keepdim=True))
    assert not block.attn.q_norm._forward_hooks


def test_another_grid_is_interpolated():
    net = vit()
    images = torch.rand(2, 3, 48, 48)
    found, scores = Teacher(net, MEAN, STD, (6, 6), scores=True)(images)
    own = F.interpolate(images, (32, 32), mode="bicubic", antialias=True).clamp(0, 1)
    tiles = net.forward_features(normalised(own))[:, 1:].transpose(1, 2).reshape(2, 24, 4, 4)
    expected = F.interpolate(tiles, (6, 6), mode="bilinear", antialias=True)
    torch.testing.assert_close(found, expected.flatten(2).transpose(1, 2))
    assert scores.shape == (2, 36)
    torch.testing.assert_close(scores.sum(1), torch.ones(2))


def test_a_teacher_never_moves_and_is_never_saved():
    teacher = Teacher(vit(), MEAN, STD, (4, 4))
    before = weights_sha256(teacher.vit.state_dict())
    teacher.train()
    assert not teacher.vit.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert teacher.state_dict() == {}
    teacher.load_state_dict({}, strict=True)
    features, _ = teacher(torch.rand(1, 3, 32, 32))
    assert not features.requires_grad
    assert weights_sha256(teacher.vit.state_dict()) == before == teacher.identity.sha256


def test_an_identity_knows_every_bit():
    net = vit()
    first = identify("a", net)
    with torch.no_grad():
        net.blocks[0].attn.qkv.weight[0, 0] += 1e-3
    assert identify("a", net).sha256 != first.sha256


def test_bf16_on_request():
    images = torch.rand(2, 3, 32, 32)
    whole, _ = Teacher(vit(), MEAN, STD, (4, 4))(images)
    half, _ = Teacher(vit(), MEAN, STD, (4, 4), dtype=torch.bfloat16)(images)
    assert half.dtype == torch.float32
    assert not torch.equal(whole, half)
    torch.testing.assert_close(whole, half, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: Teacher(vit("vit_medium_patch16_reg4_gap_256"), MEAN, STD, (4, 4), scores=True),
            "class token",
        ),
        (lambda: Teacher(vit("eva02_tiny_patch14_224"), MEAN, STD, (4, 4), scores=True), "rotary"),
        (lambda: Teacher(torch.nn.Linear(2, 2), MEAN, STD, (4, 4)), "cannot be a teacher"),
        (lambda: Teacher(vit(), MEAN, STD, (4, 4), image_size=(40, 40)), "reads 32 x 32"),
        (lambda: Teacher(vit(), MEAN, STD, (4, 4))(torch.rand(1, 1, 32, 32)), "3 channels"),
    ],
)
def test_what_cannot_teach_says_so(make, says):
    with pytest.raises(LaminaError, match=says):
        make()


def test_clip_of_timm_and_of_transformers_teach_the_same(tmp_path):
    """CLIP's image tower by both libraries, copied random weights, through our teacher."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra: bench)")
    config = transformers.CLIPVisionConfig(
        hidden_size=24, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2, image_size=32,
        patch_size=8, hidden_act="quick_gelu", projection_dim=10,
    )  # fmt: skip
    torch.manual_seed(1)
    peer = transformers.CLIPVisionModelWithProjection(config).eval()
    net = vit("vit_base_patch16_clip_quickgelu_224", num_classes=10)
    own = {k.removeprefix("vision_model."): v for k, v in peer.state_dict().items()}
    state = net.state_dict()
    state["cls_token"] = own["embeddings.class_embedding"].view(1, 1, -1)
    state["pos_embed"] = own["embeddings.position_embedding.weight"][None]
    state["patch_embed.proj.weight"] = own["embeddings.patch_embedding.weight"]
    for ours, theirs in (("norm_pre", "pre_layrnorm"), ("norm", "post_layernorm")):
        for part in ("weight", "bias"):
            state[f"{ours}.{part}"] = own[f"{theirs}.{part}"]
    for i in range(2):
        a, b = f"blocks.{i}.", f"encoder.layers.{i}."
        for part in ("weight", "bias"):
            state[f"{a}attn.qkv.{part}"] = torch.cat([own[f"{b}self_attn.{n}_proj.{part}"] for n in "qkv"])
            for ours, theirs in (
                ("attn.proj", "self_attn.out_proj"), ("norm1", "layer_norm1"), ("norm2", "layer_norm2"),
                ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2"),
            ):  # fmt: skip
                state[f"{a}{ours}.{part}"] = own[f"{b}{theirs}.{part}"]
    state["head.weight"], state["head.bias"] = own["visual_projection.weight"], torch.zeros(10)
    net.load_state_dict(state, strict=True)
    images = torch.rand(2, 3, 32, 32)
    found, scores = Teacher(net, MEAN, STD, (4, 4), projected=True, scores=True)(images)
    with torch.no_grad():
        told = peer.vision_model(pixel_values=normalised(images), output_attentions=True)
        hidden = peer.vision_model.post_layernorm(told.last_hidden_state)
        expected = peer.visual_projection(hidden)[:, 1:]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    if told.attentions and told.attentions[-1] is not None:
        weights = told.attentions[-1].mean(1)[:, 0, 1:]
        torch.testing.assert_close(scores, weights / weights.sum(1, keepdim=True), rtol=1e-4, atol=1e-6)


def test_training_leaves_the_teacher_bit_for_bit():
    """Three steps of AdamW over everything that asks for a gradient, under train()."""
    teacher = Teacher(vit(), MEAN, STD, (4, 4))
    before = weights_sha256(teacher.vit.state_dict())
    method = eva(vit(embed_dim=36, num_heads=3), teacher, decoder_width=16, decoder_depth=1, decoder_heads=2)
    optimiser = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=0.1)
    for step in range(3):
        optimiser.zero_grad()
        method.train()(torch.rand(2, 3, 32, 32))["loss"].backward()
        optimiser.step()
        method.after_step(step + 1)
    assert weights_sha256(teacher.vit.state_dict()) == before
    assert not [name for name in method.state_dict() if name.startswith("target")]
