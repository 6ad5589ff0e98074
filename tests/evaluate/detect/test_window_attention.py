"""Attention within windows against timm's own blocks under a mask, for every kind of network."""

import copy

import pytest
import torch
import torch.nn.functional as F

from helpers.dense_data import toy_encoder
from helpers.runs import NAMES
from lamina.core.errors import LaminaError
from lamina.encoder.encoder import Encoder
from lamina.evaluate.detect.head_options import AttentionOptions
from lamina.evaluate.detect.window_attention import (
    WindowAttention,
    from_windows,
    global_blocks,
    limit_attention,
    patch_map,
    to_windows,
)

SIZE = (32, 48)  # 4 x 6 patches


def by_mask(encoder: Encoder, images, window: int, everywhere: tuple[int, ...]):
    """timm's blocks on all tokens; a mask keeps patches to patches of their window, prefix tokens to
    themselves."""
    rows, columns = encoder.grid
    p = encoder.n_prefix
    place = (torch.arange(rows)[:, None] // window) * 100 + torch.arange(columns) // window
    same = place.flatten()[:, None] == place.flatten()
    tokens, rope = encoder.embed(images)
    for i, block in enumerate(encoder.vit.blocks):
        mask = torch.eye(len(same) + p, dtype=torch.bool)
        mask[p:, p:] = torch.ones_like(same) if i in everywhere else same
        per_block = getattr(encoder.vit, "rope_mixed", False)
        own = {} if rope is None else {"rope": rope[i] if per_block else rope}
        tokens = block(tokens, attn_mask=mask, **own)
    return tokens[:, p:].transpose(1, 2).reshape(len(images), -1, rows, columns)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("window", "everywhere"), [(2, (1,)), (6, ()), (None, ())])
def test_windows_are_a_mask_between_patches(name, window, everywhere):
    encoder = toy_encoder(name).eval()
    images = torch.rand(2, 3, *SIZE)
    reach = 6 if window is None else window  # 6 covers the grid: no mask between patches
    with torch.no_grad():
        expected = by_mask(encoder, images, reach, everywhere)
        plain = by_mask(encoder, images, 6, everywhere)
        limit_attention(encoder, AttentionOptions(window, everywhere))
        found = patch_map(encoder, images)
    assert found.shape == (2, 96, 4, 6)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.allclose(found, plain, atol=1e-3) == (window != 2)


@pytest.mark.parametrize("grid", [(4, 6), (5, 7), (2, 9)])
def test_what_windows_lack_is_zeros_that_are_attended_to(grid):
    """Padded tokens under a block-diagonal mask, written out."""
    attention = copy.deepcopy(toy_encoder().vit.blocks[0].attn).eval()
    side = 3
    x = torch.randn(2, grid[0] * grid[1], 96)
    down, right = -grid[0] % side, -grid[1] % side
    if grid[0] < side:
        down = 0  # the window ends with the grid
    padded = F.pad(x.reshape(2, *grid, 96), (0, 0, 0, right, 0, down))
    rows, columns = padded.shape[1:3]
    place = (torch.arange(rows)[:, None] // side) * 100 + torch.arange(columns) // side
    mask = place.flatten()[:, None] == place.flatten()
    with torch.no_grad():
        expected = attention(padded.flatten(1, 2), attn_mask=mask).reshape(2, rows, columns, 96)
        found = WindowAttention(attention, grid, side)(x)
    torch.testing.assert_close(
        found, expected[:, : grid[0], : grid[1]].reshape(x.shape), rtol=1e-4, atol=1e-5
    )


def test_windows_come_back_where_they_were():
    x = torch.arange(2 * 5 * 7 * 3.0).reshape(2, 5, 7, 3)
    windows = to_windows(x, (2, 3))
    assert windows.shape == (2 * 3 * 3, 6, 3)
    assert torch.equal(windows[4].reshape(2, 3, 3), x[0, 2:4, 3:6])
    assert torch.equal(from_windows(windows, (5, 7), (2, 3)), x)


def test_global_blocks_are_those_of_vitdet():
    assert global_blocks(12, None) == (2, 5, 8, 11)
    assert global_blocks(24, None) == (5, 11, 17, 23)
    assert global_blocks(32, None) == (7, 15, 23, 31)
    assert global_blocks(6, None)[-1] == 5
    assert global_blocks(2, None) == (0, 1)
    with pytest.raises(LaminaError, match="0 to 11"):
        global_blocks(12, (2, 12))


def test_what_nothing_reads_is_not_trained():
    for name in NAMES:
        encoder = toy_encoder(name)
        limit_attention(encoder, AttentionOptions(2))
        patch_map(encoder.train(), torch.rand(1, 3, *SIZE)).square().sum().backward()
        idle = [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
        assert not idle, name


def test_drop_path_falls_on_whole_images():
    """A block that is dropped is dropped for all windows of an image."""
    encoder = toy_encoder(drop_path=0.0)
    for block in encoder.vit.blocks:
        block.drop_path1 = copy.deepcopy(toy_with_drop_path())
    limit_attention(encoder.train(), AttentionOptions(2, ()))
    tokens, _ = encoder.embed(torch.rand(64, 3, *SIZE))
    before = tokens[:, 1:]
    block = encoder.vit.blocks[0]
    moved = (block.drop_path1(block.ls1(block.attn(block.norm1(before)))) != 0).flatten(2).any(2)
    assert (moved.all(1) | (~moved).all(1)).all()
    assert 0 < moved[:, 0].float().mean() < 1


def toy_with_drop_path():
    from timm.layers import DropPath

    return DropPath(0.5)


def test_a_beit_is_refused():
    with pytest.raises(LaminaError, match="relative positions"):
        limit_attention(toy_encoder("beit_base_patch16_224"), AttentionOptions())
