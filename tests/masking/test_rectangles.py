"""Masks made of rectangles, blockwise and inverse, against transcriptions of the published algorithms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lamina.core.errors import LaminaError
from lamina.core.rng import Purpose, sample_keys, uniform
from lamina.masking.blockwise import BlockwiseMasking, lay_blocks
from lamina.masking.inverse_block import InverseMasking, sides
from lamina.masking.random import RandomMasking


@given(st.integers(1, 16), st.integers(1, 16), st.floats(0.05, 0.95), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_blockwise_hides_the_rounded_share_of_any_grid(rows, columns, ratio, min_block):
    n = rows * columns
    masking = BlockwiseMasking(ratio, min_block)
    if not 0 < round(ratio * n) < n:
        with pytest.raises(LaminaError, match="visible"):
            masking.n_visible((rows, columns))
        return
    mask = masking(sample_keys(0, 0, torch.arange(4)), (rows, columns))
    assert mask.shape == (4, n)
    assert mask.sum(1).tolist() == [round(ratio * n)] * 4
    assert masking.n_visible((rows, columns)) == n - round(ratio * n)


def test_blockwise_counts_of_beit_and_maskfeat():
    assert BlockwiseMasking(75 / 196).n_visible((14, 14)) == 196 - 75
    assert BlockwiseMasking(0.4).n_visible((14, 14)) == 196 - 78


def beits_blocks(generator, rows, columns, n_hidden, least=16, tries=10):
    """BEiT's algorithm as published, with numpy's generator: the mask before single patches, the blocks."""
    mask, blocks = np.zeros((rows, columns), dtype=int), []
    while mask.sum() < n_hidden:
        room, found = n_hidden - mask.sum(), False
        for _ in range(tries):
            area = generator.uniform(min(least, room), max(least, room))
            aspect = np.exp(generator.uniform(np.log(0.3), np.log(1 / 0.3)))
            h, w = int(np.rint(np.sqrt(area * aspect))), int(np.rint(np.sqrt(area / aspect)))
            if not (h < rows and w < columns):
                continue
            y, x = (
                generator.integers(0, rows - h, endpoint=True),
                generator.integers(0, columns - w, endpoint=True),
            )
            fresh = h * w - mask[y : y + h, x : x + w].sum()
            if 0 < fresh <= room:
                mask[y : y + h, x : x + w] = 1
                blocks.append((h, w))
                found = True
                break
        if not found:
            break
    return mask, blocks


def block_statistics(masks, blocks):
    """Per image: blocks, patches under them; per first block: area, size of the log aspect; of all blocks too."""
    first = np.array([b[0] for b in blocks], float)
    every = np.array([side for b in blocks for side in b], float)
    return {
        "blocks": np.array([len(b) for b in blocks]),
        "covered": masks.sum((1, 2)),
        "centre": masks[:, 5:9, 5:9].mean((1, 2)),
        "first corner": masks[:, :2, :2].mean((1, 2)),
        "last corner": masks[:, -2:, -2:].mean((1, 2)),
        "first area": first.prod(1),
        "first aspect": np.log(first[:, 0] / first[:, 1]),
        "first stretch": np.abs(np.log(first[:, 0] / first[:, 1])),
        "area": every.prod(1),
        "stretch": np.abs(np.log(every[:, 0] / every[:, 1])),
    }


def test_blocks_are_distributed_as_beits():
    n, generator = 1500, np.random.default_rng(0)
    theirs = [beits_blocks(generator, 14, 14, 75) for _ in range(n)]
    draws = uniform(sample_keys(1, 0, torch.arange(n)), 1024, Purpose.MASK).tolist()
    ours = [lay_blocks(row, (14, 14), 75, 16) for row in draws]
    a = block_statistics(np.stack([m for m, _ in theirs]), [b for _, b in theirs])
    b = block_statistics(
        np.stack([m for m, _ in ours]), [[(x.height, x.width) for x in bs] for _, bs in ours]
    )
    for name in a:
        error = math.sqrt(a[name].var() / len(a[name]) + b[name].var() / len(b[name]))
        assert abs(a[name].mean() - b[name].mean()) < 4.5 * error, name
    assert (b["covered"] <= 75).all()


def test_blockwise_masks_are_their_blocks_and_single_patches_for_the_rest():
    keys = sample_keys(2, 0, torch.arange(40))
    mask = BlockwiseMasking(75 / 196)(keys, (14, 14)).reshape(-1, 14, 14)
    draws = uniform(keys, 1024, Purpose.MASK).tolist()
    alone = []
    for row, numbers in zip(mask.numpy(), draws, strict=True):
        covered, blocks = lay_blocks(numbers, (14, 14), 75, 16)
        painted = np.zeros((14, 14), bool)
        for top, left, height, width in blocks:
            painted[top : top + height, left : left + width] = True
        assert (painted == covered).all()
        assert row[covered].all()
        alone.append(75 - covered.sum())
    assert 0 <= np.mean(alone) < 10
    assert max(alone) > 0


def test_blocks_stay_below_the_whole_height_and_width():
    draws = uniform(sample_keys(6, 0, torch.arange(300)), 1024, Purpose.MASK).tolist()
    blocks = [block for row in draws for block in lay_blocks(row, (6, 9), 40, 16)[1]]
    assert {5} == {max(b.height for b in blocks)}
    assert {8} == {max(b.width for b in blocks)}


def test_blockwise_on_a_tiny_grid_still_lays_blocks():
    """4 x 6 at 0.4: 10 patches, blocks from 5 up, so the mask hangs together more than at random."""
    keys = sample_keys(0, 0, torch.arange(300))

    def neighbours(masking):
        m = masking(keys, (4, 6)).reshape(-1, 4, 6).float()
        return ((m[:, 1:] * m[:, :-1]).sum((1, 2)) + (m[..., 1:] * m[..., :-1]).sum((1, 2))).mean()

    numbers = uniform(keys, 1024, Purpose.MASK).tolist()
    for row, draws in zip(BlockwiseMasking(0.4)(keys, (4, 6)).reshape(-1, 4, 6), numbers, strict=True):
        assert row.numpy()[lay_blocks(draws, (4, 6), 10, least=5)[0]].all()
    assert neighbours(BlockwiseMasking(0.4)) > 1.3 * neighbours(RandomMasking(10 / 24))


@given(st.integers(1, 16), st.integers(1, 16), st.floats(0.05, 0.95), st.booleans())
@settings(max_examples=100, deadline=None)
def test_inverse_leaves_the_count_of_any_grid(rows, columns, ratio, roll):
    n = rows * columns
    visible = n - int(ratio * n + 1e-6)
    if visible in (0, n):
        return
    mask = InverseMasking(ratio, roll)(sample_keys(0, 0, torch.arange(20)), (rows, columns))
    assert mask.shape == (20, n)
    assert (~mask).sum(1).tolist() == [visible] * 20


def test_the_visible_rectangle_fits_every_grid():
    """Also where the grid sets the aspect and roots are whole, which rounding lifts above the side."""
    ends = torch.linspace(0, 1, 9, dtype=torch.float64)
    for rows, columns in [(1, 5), (3, 3), (3, 8), (8, 3), (5, 20), (2, 12)]:
        for n in range(1, rows * columns):
            height, width = sides(ends, n, (rows, columns))
            assert (height <= rows).all()
            assert (width <= columns).all()
            assert (height * width >= n).all()


def capis_block(generator, rows, columns, n):
    """CAPI's visible block with numpy's generator, before its roll: the first n patches of a rectangle."""
    low = max(np.log(0.5), np.log(n / columns**2))
    high = min(np.log(2), np.log(rows**2 / n))
    aspect = np.exp(generator.uniform(low, high))
    h, w = math.ceil(math.sqrt(n * aspect)), math.ceil(math.sqrt(n / aspect))
    y, x = generator.integers(0, rows - h, endpoint=True), generator.integers(0, columns - w, endpoint=True)
    block = np.zeros((rows, columns), bool)
    block[y : y + h, x : x + w] = True
    kept = np.flatnonzero(block)[:n]
    block = np.zeros(rows * columns, bool)
    block[kept] = True
    return block.reshape(rows, columns), (h, w)


def test_inverse_is_distributed_as_capis_block():
    n, generator = 3000, np.random.default_rng(1)
    theirs = [capis_block(generator, 14, 14, 69) for _ in range(n)]
    a, sides = np.stack([m for m, _ in theirs]), np.array([s for _, s in theirs])
    b = ~InverseMasking(0.65, roll=False)(sample_keys(8, 0, torch.arange(n)), (14, 14)).numpy().reshape(
        n, 14, 14
    )
    p = (a.mean(0) + b.mean(0)) / 2
    assert (np.abs(a.mean(0) - b.mean(0)) <= 4.5 * np.sqrt(2 * p * (1 - p) / n)).all()
    heights, widths = b.any(2).sum(1), b.any(1).sum(1)
    assert stats.ks_2samp(widths, sides[:, 1]).pvalue > 1e-3
    assert abs(np.log(heights / widths).mean()) < 0.1
    assert (heights * widths < 69 + 2 * widths).all()  # filled but for the last row, and a spare one


def test_rolled_rectangles_are_rectangles_on_a_torus_and_show_every_patch_alike():
    n = 4000
    visible = ~InverseMasking(0.75)(sample_keys(9, 0, torch.arange(n)), (8, 8)).numpy().reshape(n, 8, 8)
    share = visible.mean(0)
    assert np.abs(share - 0.25).max() < 4.5 * math.sqrt(0.25 * 0.75 / n)
    # Around the torus a rectangle, even one whose last row is short, begins once in each row and column.
    starts = (visible & ~np.roll(visible, 1, 2)).sum(2)
    assert (starts <= 1).all()
    assert ((visible.any(2) & ~np.roll(visible.any(2), 1, 1)).sum(1) == 1).all()
