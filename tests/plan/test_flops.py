"""Operations of a step: against closed forms of a ViT, and against what torch counts while it computes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lamina.core.batch import Batch
from lamina.core.config import merge
from lamina.methods.catalog import METHODS, recipe
from lamina.plan.flops import count_flops
from lamina.plan.work import Work, decode_cores
from lamina.recipes.build import build_task, resolve

TINY = {
    "encoder": {
        "name": "vit_tiny_patch16_224",
        "image_size": [32, 32],
        "patch_size": 8,
        "width": 48,
        "depth": 2,
        "heads": 2,
    },
    "decoder": {"width": 32, "depth": 2, "heads": 2},
    "masking": {"unit_px": 8, "min_block": 1},
}


def block(tokens: int, width: int, queries: int | None = None) -> float:
    """Forward of a block: 4 matrices of attention and 8 of the MLP (of width x width), QK' and AV; 2 operations for
    a multiplication and its addition. With fewer queries than tokens, keys and values alone are of all tokens."""
    q = tokens if queries is None else queries
    matrices = (2 * tokens + 2 * q + 8 * q) * width**2
    return 2 * (matrices + 2 * q * tokens * width)


@pytest.mark.parametrize(
    ("size", "width", "depth", "patches", "patch_px"),
    [("s", 384, 12, 196, 16), ("b", 768, 12, 196, 16), ("h", 1280, 32, 256, 14)],
)
def test_mae_is_the_closed_form(size, width, depth, patches, patch_px):
    """The encoder runs on a quarter of the patches; of the decoder's first block queries, keys and values of hidden
    patches are made once for a batch, and its last block is computed where it is predicted."""
    found = count_flops(resolve(recipe(f"mae-{size}")), images=64)
    visible, pixels = patches // 4, 3 * patch_px**2
    seen, whole, hidden, d = visible + 1, patches + 1, patches - visible, 512
    embedding = 2 * visible * pixels * width
    assert found.encoder == pytest.approx(embedding + depth * block(seen, width), rel=1e-6)
    first = block(whole, d) - 2 * hidden * 3 * d**2 + 2 * patches * 3 * d**2 / 64
    middle = 6 * block(whole, d)
    last = block(whole, d, queries=hidden)
    ends = 2 * seen * width * d + 2 * hidden * d * pixels
    assert found.decoder == pytest.approx(ends + first + middle + last, rel=1e-6)
    assert (found.fusion, found.other) == (0, 0)
    # A backward pass is two forward passes, but nobody asks for the gradient of the pixels.
    assert found.training == pytest.approx(3 * found.forward - embedding, rel=1e-3)


def test_mff_adds_a_matrix_for_each_shallow_tap():
    plain, fused = (
        count_flops(resolve(replace(recipe("mae-s"), fusion=f)))
        for f in (recipe("mae-s").fusion, recipe("mae").fusion)
    )
    assert fused.fusion == 5 * 2 * 50 * 384**2
    assert fused.encoder == plain.encoder


@pytest.mark.parametrize("name", [m.name for m in METHODS])
def test_every_method_counts_what_torch_counts_while_it_computes(name):
    """Teachers and tokenizers aside, which are not loaded."""
    changed = merge(recipe(name), {**TINY, "data": {"second_view": "cmae" if name == "cmae" else "none"}})
    if changed.fusion.kind == "mff":
        changed = merge(changed, {"fusion": {"layers": [0, 1]}})
    if changed.method == "supervised":
        changed = merge(changed, {"labels": {"classes": ["a", "b", "c"]}})
    if changed.target.kind in ("tokens", "teacher"):
        changed = merge(changed, {"target": {"width": 24}})
    resolved = resolve(changed)
    found = count_flops(resolved, images=2)
    if changed.target.kind in ("tokens", "teacher"):
        assert found.training > 2 * found.forward
        return
    task = build_task(resolved).train()
    pixels = torch.rand(2, 3, 32, 32)
    batch = Batch(
        pixels,
        torch.arange(2),
        labels=torch.zeros(2, dtype=torch.int64),
        view=pixels if name == "cmae" else None,
    )
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        loss = task(batch)["loss"]
        forward = counter.get_total_flops()
        loss.backward()
    assert found.forward == pytest.approx(forward / 2, rel=0.01)
    assert found.training == pytest.approx(counter.get_total_flops() / 2, rel=0.01)


def test_hours_and_cores_follow_from_the_rate():
    """100 steps of 1,000 images, 10 GFLOP each, on 4 devices of 1 TFLOP/s at 50 %: 200 images/s, 500 s."""
    work = Work(steps=100, batch_size=1000, flops_per_image=1e10)
    assert work.images_per_second(1e12, 4, 0.5) == pytest.approx(200)
    assert work.hours(1e12, 4, 0.5) == pytest.approx(500 / 3600)
    assert decode_cores(200, 30) == 7
