"""Ids of a frozen tokenizer as the target: which id falls on which patch, what the tokenizer is shown."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lamina.core.errors import LaminaError
from lamina.targets.token_ids import TokenIds, Tokenizer
from lamina.tokenizer.dalle import DalleEncoder, DalleTokenizer
from lamina.tokenizer.vae import DiscreteVAE


class Grey(nn.Module):
    """Names 8 x 8 px by their brightness in thirds, and remembers what it was shown."""

    vocabulary, stride = 4, 8

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen = None

    def ids(self, images):
        self.seen = images
        return (3 * F.avg_pool2d(images.mean(1, keepdim=True), 8)[:, 0]).round().long()

    def decode(self, ids):
        return (ids / 3).repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None].expand(-1, 3, -1, -1)


@pytest.mark.parametrize("patch", [(8, 8), (16, 16), (4, 4), (14, 14), (8, 16)])
@pytest.mark.parametrize("grid", [(3, 5), (4, 4)])
def test_each_patch_has_its_own_id_in_reading_order(patch, grid):
    torch.manual_seed(0)
    words = torch.randint(0, 4, (2, *grid))
    images = (
        (words / 3)
        .repeat_interleave(patch[0], 1)
        .repeat_interleave(patch[1], 2)[:, None]
        .expand(-1, 3, -1, -1)
    )
    target = TokenIds(Grey(), patch)
    ids, scores = target(images)
    assert scores is None
    assert torch.equal(ids, words.flatten(1))
    assert torch.equal(target((255 * images).round().to(torch.uint8))[0], ids)
    assert target.tokenizer.seen.shape == (2, 3, 8 * grid[0], 8 * grid[1])
    assert 0 <= target.tokenizer.seen.min() <= target.tokenizer.seen.max() <= 1  # bicubic overshoots
    assert target.width == 4
    made = target.decode_ids(ids, grid)
    assert made.shape == images.shape
    centre = (..., slice(patch[0] // 2, None, patch[0]), slice(patch[1] // 2, None, patch[1]))
    torch.testing.assert_close(made[centre], images[centre], rtol=0, atol=0.17)


def test_the_tokenizer_is_frozen_and_kept_out_of_the_state():
    tokenizer = Grey()
    target = TokenIds(tokenizer, (8, 8)).train()
    assert not tokenizer.training
    assert not tokenizer.weight.requires_grad
    assert target.state_dict() == {}
    target.load_state_dict({})
    assert isinstance(tokenizer, Tokenizer)
    other = Grey()
    other.weight.data += 1
    assert target.identity.name == "Grey"
    assert target.identity.sha256 == TokenIds(Grey(), (4, 4)).identity.sha256
    assert target.identity.sha256 != TokenIds(other, (8, 8)).identity.sha256


def test_ids_do_not_depend_on_the_precision_around_them():
    """A tokenizer whose latents are spread over all levels has near ties somewhere."""
    torch.manual_seed(0)
    tokenizer = DiscreteVAE((8, 8, 8), width=8)
    tokenizer.encoder[-1].weight.data *= 100
    target = TokenIds(tokenizer, (8, 8))
    images = torch.rand(8, 3, 32, 32)
    alone = target(images)[0]
    with torch.autocast("cpu", torch.bfloat16):
        inside, bare = target(images)[0], tokenizer.ids(images).flatten(1)
    assert torch.equal(inside, alone)
    assert not torch.equal(bare, alone)


def test_a_square_of_ids_needs_no_grid():
    torch.manual_seed(0)
    tokenizer = DiscreteVAE((4, 4), width=8)
    target = TokenIds(tokenizer, (8, 8))
    ids = target(torch.rand(2, 3, 24, 24))[0]
    assert torch.equal(target.decode_ids(ids), tokenizer.decode(ids.view(2, 3, 3)))
    with pytest.raises(LaminaError, match="8 ids are no grid of 2 x 2"):
        target.decode_ids(ids[:, :8])
    with pytest.raises(LaminaError, match="9 ids are no grid of 2 x 4"):
        target.decode_ids(ids, (2, 4))


def test_what_cannot_be_is_refused():
    with pytest.raises(LaminaError, match="a Linear is no tokenizer, it has no 'ids'"):
        TokenIds(nn.Linear(2, 2), (8, 8))
    target = TokenIds(DalleTokenizer(DalleEncoder(width=8, vocabulary=11)), (16, 16))
    with pytest.raises(LaminaError, match="40 x 32 px cannot be cut into patches of 16 x 16"):
        target(torch.rand(1, 3, 40, 32))
    assert not target.can_decode
    with pytest.raises(LaminaError, match="makes no images of ids"):
        target.decode_ids(torch.zeros(1, 4, dtype=torch.int64))
