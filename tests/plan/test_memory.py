"""Memory of a step on paper against bytes that real tensors, gradients and optimisers have."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lamina.core.batch import Batch
from lamina.methods.catalog import recipe
from lamina.plan.memory import estimate_memory, saved_bytes
from lamina.plan.parallel import block_bytes, under_ddp, under_fsdp
from lamina.recipes.build import build_task, resolve
from lamina.train.optim import build_optimizer
from lamina.train.precision import autocast


def real(resolved, images: int) -> tuple[torch.nn.Module, Batch]:
    height, width = resolved.encoder.image_size
    pixels = torch.rand(images, 3, height, width)
    view = pixels.clone() if resolved.method == "cmae" else None
    return build_task(resolved).train(), Batch(pixels, torch.arange(images), view=view)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["mae-small", "crossmae-small", "simmim-small", "cmae-small"])
def test_activations_are_what_autograd_keeps(name, precision, checkpointing):
    """Both count storages once; torch computes in fused attention here, and in autocast. A CPU's autocast keeps a few
    norms in bf16 that a GPU's computes in fp32: that is the tolerance."""
    found = resolve(recipe(name))
    encoder = replace(found.encoder, depth=3, activation_checkpointing=checkpointing)
    found = replace(
        found,
        encoder=encoder,
        fusion=replace(found.fusion, layers=(0, 2)) if found.fusion.kind == "mff" else found.fusion,
    )
    found = resolve(replace(found, train=replace(found.train, precision=precision)))
    task, batch = real(found, 3)
    with autocast(torch.device("cpu"), precision):
        kept = saved_bytes(task, batch)
    assert estimate_memory(found, 3).activations == pytest.approx(
        kept, rel=0.04 if precision == "bf16" else 0.001
    )


@pytest.mark.parametrize("name", ["mae-s", "mae", "crossmae-b"])
def test_published_sizes_keep_what_is_counted(name):
    found = resolve(recipe(name))
    task, batch = real(found, 1)
    assert estimate_memory(found, 1).activations == pytest.approx(saved_bytes(task, batch), rel=0.001)


def test_weights_gradients_and_moments_are_exact():
    found = resolve(recipe("mae-small"))
    task, batch = real(found, 2)
    optimizer = build_optimizer(task, found.optim)
    task(batch)["loss"].backward()
    optimizer.step()
    estimate = estimate_memory(found, 2)
    trained = [p for p in task.parameters() if p.requires_grad]
    assert estimate.parameters == sum(p.numel() for p in trained)
    assert estimate.gradients == sum(p.grad.nbytes for p in trained)
    assert estimate.weights == sum(t.nbytes for t in [*task.parameters(), *task.buffers()])
    moments = [v for s in optimizer.state.values() for k, v in s.items() if k != "step"]
    assert estimate.optimizer == sum(t.nbytes for t in moments)


def test_fsdp_shares_what_ddp_repeats():
    """Units of mae-small: 12 blocks of 192 channels, and the decoder, which has 4 of 128, a matrix and a bias
    before and after them (K = 192 too), a norm and a token; a block has 12 D^2 + 13 D numbers."""
    found = resolve(recipe("mae-small"))
    estimate = estimate_memory(found, 8)
    blocks = block_bytes(found)
    size = {d: 4 * (12 * d**2 + 13 * d) for d in (192, 128)}
    everything = sum(p.nbytes for p in build_task(found).parameters())
    decoder = 4 * size[128] + 4 * (192 * 128 + 128 + 3 * 128 + 128 * 192 + 192)
    assert blocks.largest == decoder
    assert blocks.outside == everything - 12 * size[192] - decoder
    ddp, fsdp = under_ddp(estimate, 1.0), under_fsdp(estimate, 1.0, 4, blocks)
    for part in ("weights", "gradients", "optimizer"):
        assert getattr(fsdp, part) == getattr(ddp, part) / 4 == getattr(estimate, part) / 4
    assert fsdp.gathered == 3 * decoder + 2 * blocks.outside
    assert fsdp.activations == ddp.activations == estimate.activations
    assert under_fsdp(estimate, 1.0, 1, blocks) == ddp
