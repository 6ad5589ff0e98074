"""Heads of classifiers: pooling and necks against timm and torch, frozen encoders, slow copies, layers."""

import json

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from helpers.classifier_heads import CLASSES, PLAIN, options_of, task_of
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.interop.export_classifier import export_supervised, load_supervised
from lamina.supervised.classifier import Supervised
from lamina.supervised.options import SupervisedOptions
from lamina.supervised.pooling import AttentivePool


def shake(task: Supervised) -> Supervised:
    """Everything off its starting value, statistics too."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in [*task.parameters(), *(b for n, b in task.named_buffers() if "running" in n)]:
            tensor += 0.2 * torch.rand(tensor.shape, generator=generator)
    return task


def batch_of(n: int = 6, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, 16, 24), generator=generator, dtype=torch.uint8)
    return Batch(images, torch.arange(n), labels=torch.arange(n) % CLASSES)


def step(task: Supervised, i: int, lr: float = 0.05) -> None:
    task.train()
    task(batch_of(seed=i))["loss"].backward()
    with torch.no_grad():
        for parameter in task.parameters():
            if parameter.grad is not None:
                parameter -= lr * parameter.grad
                parameter.grad = None
    task.after_step(i + 1)


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_a_norm_after_pooling_is_timms(pool, tmp_path):
    options = options_of()
    task = shake(task_of(options, pool=pool, neck="layer")).eval()
    files = export_supervised(task, options, PLAIN, tmp_path / "x", plain=True)
    config = json.loads(files.config.read_text())
    assert config["model_args"]["fc_norm"] == (pool == "mean")
    peer = timm.create_model(
        config["architecture"], num_classes=config["num_classes"], **config["model_args"]
    ).eval()
    peer.load_state_dict(load_file(files.weights), strict=True)
    images = batch_of().images
    expected = task.logits(images)
    torch.testing.assert_close(peer(task.encoder.normalise(images)), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(load_supervised(files.weights).logits(images), expected)
    assert not task.encoder.norm.weight.requires_grad


def test_a_batch_norm_is_folded_into_the_head(tmp_path):
    options = options_of()
    task = shake(task_of(options, pool="cls", neck="batch")).eval()
    images = batch_of().images
    pooled = task.encoder.norm(task.encoder(images, (2,))[0])[:, 0]
    mean, var = task.neck.running_mean, task.neck.running_var
    expected = task.head((pooled - mean) / (var + 1e-6).sqrt())
    torch.testing.assert_close(task.logits(images), expected, rtol=1e-4, atol=1e-4)
    files = export_supervised(task, options, PLAIN, tmp_path / "x.safetensors", plain=True)
    peer = timm.create_model(
        "vit_tiny_patch16_224",
        **json.loads(files.config.read_text())["model_args"],
    ).eval()
    peer.load_state_dict(load_file(files.weights), strict=True)
    torch.testing.assert_close(peer(task.encoder.normalise(images)), expected, rtol=1e-4, atol=1e-4)


def test_the_attentive_pool_is_torchs_attention_of_one_query():
    torch.manual_seed(0)
    pool, peer = AttentivePool(12, 3), nn.MultiheadAttention(12, 3, bias=False, batch_first=True)
    with torch.no_grad():
        peer.in_proj_weight.copy_(torch.cat([torch.eye(12), pool.keys_values.weight]))
        peer.out_proj.weight.copy_(torch.eye(12))
        pool.query.mul_(500)  # off the uniform
    tokens = torch.randn(4, 7, 12)
    query = pool.query.detach().reshape(1, 1, 12).expand(4, 1, 12)
    expected, weights = peer(query, tokens, tokens)
    torch.testing.assert_close(pool(tokens), expected[:, 0])
    assert weights.std() > 0.01


def test_an_attentive_classifier_keeps_its_pool(tmp_path):
    options = options_of()
    task = shake(task_of(options, pool="attentive", neck="batch")).eval()
    with pytest.raises(LaminaError, match="pools tokens by attention"):
        export_supervised(task, options, PLAIN, tmp_path / "x.safetensors", plain=True)
    files = export_supervised(task, options, PLAIN, tmp_path / "x.safetensors")
    assert not any(name.startswith(("head", "pooling")) for name in load_file(files.weights))
    images = batch_of().images
    torch.testing.assert_close(load_supervised(files.weights).logits(images), task.logits(images))


@pytest.mark.parametrize("neck", ["none", "batch"])
def test_a_frozen_encoder_stays_and_the_head_learns(neck):
    task = task_of(options_of(drop_path=0.5), frozen=True, neck=neck, head_std=0.01)
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    first = float(task.train()(batch_of())["loss"].detach())
    assert first == float(task(batch_of())["loss"].detach())  # no drop path
    for _ in range(20):
        step(task, 0)
    assert float(task(batch_of())["loss"].detach()) < first
    moved = {n.split(".")[0] for n, t in task.state_dict().items() if not torch.equal(t, before[n])}
    assert moved == ({"head"} if neck == "none" else {"head", "neck"})
    assert not any(p.requires_grad for p in task.encoder.parameters())


def test_a_slow_copy_follows_by_its_share():
    task = task_of(ema=0.9)
    (bias,) = (task.head.bias,)
    expected = bias.detach().clone()
    for i in range(12):
        step(task, i)
        share = min(0.9, (2 + i) / (11 + i))
        expected = share * expected + (1 - share) * bias.detach()
    assert task.average is not None
    torch.testing.assert_close(task.average.head.bias, expected)
    assert not torch.equal(task.average.head.bias, bias)
    images = batch_of().images
    assert torch.equal(task.eval().logits(images), task.average.logits(images))
    with torch.no_grad():
        task.encoder.vit.cls_token += 1
    task.restart_average()
    assert torch.equal(task.average.encoder.vit.cls_token, task.encoder.vit.cls_token)


def test_the_slow_copy_is_what_is_exported(tmp_path):
    options = options_of()
    task = task_of(options, ema=0.99)
    step(task, 0, lr=1.0)
    files = export_supervised(task.eval(), options, PLAIN, tmp_path / "x.safetensors", plain=True)
    images = batch_of().images
    assert torch.equal(load_supervised(files.weights).logits(images), task.average.logits(images))


def mae_layer(name: str, num_layers: int) -> int:
    """util/lr_decay.py of facebookresearch/mae in its own words; `num_layers` is depth + 1."""
    if name in ("cls_token", "pos_embed") or name.startswith("patch_embed"):
        return 0
    if name.startswith("blocks"):
        return int(name.split(".")[1]) + 1
    return num_layers


def test_layers_are_those_of_mae():
    task = task_of(pool="mean", neck="layer")
    ids = task.layer_ids()
    for name, layer in ids.items():
        plain = name.removeprefix("encoder.vit.").replace("neck.", "fc_norm.")
        assert layer == mae_layer(plain, task.encoder.depth + 1), name
    assert set(ids) == {name for name, p in task.named_parameters() if p.requires_grad}
    assert ids["encoder.vit.blocks.1.attn.qkv.weight"] == 2


def test_what_makes_no_sense():
    with pytest.raises(LaminaError, match="ema"):
        SupervisedOptions(ema=1.0)
    with pytest.raises(LaminaError, match="head_std"):
        SupervisedOptions(head_std=-1.0)
