"""The cross and the prompt decoder against their equations written out for one sample at a time."""

import pytest
import torch
from torch import nn

from lamina.core.errors import LaminaError
from lamina.core.patches import sincos_2d
from lamina.core.rng import sample_keys
from lamina.core.weight_init import init_mae
from lamina.decoder.cross import CrossDecoder, PromptDecoder
from lamina.masking.random import RandomMasking

IN, OUT, GRID, PREFIX = 12, 5, (4, 6), 1
N = 24
SIZES = {"width": 16, "depth": 3, "heads": 2}
MASK = RandomMasking(0.75)(sample_keys(0, 0, torch.arange(3)), GRID)
N_VISIBLE = 6
KEYS = sample_keys(7, 1, torch.arange(3))


def shaken(module: nn.Module) -> nn.Module:
    """In float64, with no parameter at a value that hides what it does."""
    torch.manual_seed(1)
    init_mae(module)
    for parameter in module.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return module.double()


def latent() -> torch.Tensor:
    return torch.randn(3, PREFIX + N_VISIBLE, IN, dtype=torch.float64)


def affine(linear: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return x @ linear.weight.T + linear.bias


def normed(norm: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight + norm.bias


def attention(block: nn.Module, queries: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    """torch's own module with copied weights."""
    width, heads = len(block.proj.weight), block.heads
    keys, values = block.kv.weight.split(width)
    peer = nn.MultiheadAttention(width, heads, kdim=memory.shape[-1], vdim=memory.shape[-1]).double()
    if peer.in_proj_weight is None:
        peer.q_proj_weight.data, peer.k_proj_weight.data = block.q.weight, keys
        peer.v_proj_weight.data = values
    else:
        peer.in_proj_weight.data = torch.cat([block.q.weight, keys, values])
    peer.in_proj_bias.data = torch.cat([block.q.bias, block.kv.bias])
    peer.out_proj.load_state_dict(block.proj.state_dict())
    return peer(queries, memory, memory)[0]


def mlp(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    inner = affine(block.mlp.fc1, normed(block.norm2, x))
    return affine(block.mlp.fc2, 0.5 * inner * (1 + torch.erf(inner / 2**0.5)))


@pytest.mark.parametrize("latents", ["one", "per_block"])
def test_cross_decoder_is_its_equations(latents):
    decoder = shaken(CrossDecoder(IN, OUT, GRID, PREFIX, **SIZES, latents=latents))
    given = latent() if latents == "one" else [latent() for _ in range(3)]
    values, where = decoder(given, MASK, KEYS)
    assert decoder.n_latents == (1 if latents == "one" else 3)
    positions = sincos_2d(16, GRID).double()
    for b in range(3):
        # One patch at a time: no query knows of another.
        for i, patch in enumerate(where[b].tolist()):
            x = (decoder.mask_token[0, 0] + positions[patch])[None]
            for j, block in enumerate(decoder.blocks):
                memory = given[b] if latents == "one" else given[j][b]
                x = x + attention(block, normed(block.norm1, x), memory)
                x = x + mlp(block, x)
            expected = affine(decoder.head, normed(decoder.norm, x))[0]
            torch.testing.assert_close(values[b, i], expected, rtol=1e-10, atol=1e-10)


def test_prompt_decoder_is_its_equations():
    decoder = shaken(PromptDecoder(IN, OUT, GRID, PREFIX, **SIZES))
    given = latent()
    values, where = decoder(given, MASK, KEYS)
    assert where.tolist() == [list(range(N))] * 3
    positions = sincos_2d(16, GRID).double()
    for b in range(3):
        prefix, *seen = affine(decoder.embed, given[b])
        seen, hidden = iter(seen), MASK[b]
        # By place, as mmpretrain's neck restores the order before it projects keys and values.
        tokens = [decoder.mask_token[0, 0] if h else next(seen) for h in hidden.tolist()]
        tokens = torch.stack(tokens) + positions
        x, fixed = tokens[hidden], tokens.clone()
        for block in decoder.blocks:
            h = normed(block.norm1, x)
            memory = fixed.clone()
            memory[hidden] = h
            x = x + attention(block, h, torch.cat([prefix[None], memory]))
            x = x + mlp(block, x)
        tokens = tokens.clone()
        tokens[hidden] = x
        expected = affine(decoder.head, normed(decoder.norm, tokens))
        torch.testing.assert_close(values[b], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("grid", "ratio", "share", "predicted"),
    [
        ((14, 14), 0.75, 0.25, 49),  # CrossMAE's published setting
        ((14, 14), 0.75, 0.75, 147),
        ((8, 8), 0.75, 0.25, 16),
        ((2, 5), 0.75, 0.25, 3),  # published: 10 - int(2.5) hidden, less int(10 * 0.5) left out
        ((2, 5), 0.75, 0.75, 8),  # the share that is hidden is all that is hidden, whatever the rounding
        ((7, 7), 0.75, 0.75, 37),
        ((4, 4), 0.9, 0.01, 1),
    ],
)
def test_how_many_are_predicted(grid, ratio, share, predicted):
    masking, n = RandomMasking(ratio), grid[0] * grid[1]
    mask = masking(sample_keys(0, 0, torch.arange(2)), grid)
    decoder = CrossDecoder(IN, OUT, grid, PREFIX, **SIZES, share=share)
    values, where = decoder(torch.randn(2, PREFIX + masking.n_visible(grid), IN), mask)
    assert values.shape == (2, predicted, OUT)
    assert where.shape == (2, predicted)
    assert bool(mask.gather(1, where).all())  # hidden ones alone
    assert bool((where.diff(dim=1) > 0).all())  # ascending, none twice
    assert decoder.n_predicted(n, int(mask[0].sum())) == predicted


def test_the_draw_is_a_function_of_the_key():
    decoder = CrossDecoder(IN, OUT, GRID, PREFIX, **SIZES)
    given = torch.randn(3, PREFIX + N_VISIBLE, IN)
    _, where = decoder(given, MASK, KEYS)
    torch.manual_seed(99)  # torch's generator has no say
    assert torch.equal(decoder(given, MASK, KEYS)[1], where)
    # Nor has the rest of the batch.
    assert torch.equal(decoder(given[1:2], MASK[1:2], KEYS[1:2])[1], where[1:2])
    assert not torch.equal(decoder(given, MASK, sample_keys(7, 2, torch.arange(3)))[1], where)


def test_without_keys_torchs_generator_draws():
    decoder = CrossDecoder(IN, OUT, GRID, PREFIX, **SIZES)
    given = torch.randn(3, PREFIX + N_VISIBLE, IN)
    torch.manual_seed(5)
    first, second = decoder(given, MASK)[1], decoder(given, MASK)[1]
    torch.manual_seed(5)
    assert torch.equal(decoder(given, MASK)[1], first)
    assert not torch.equal(first, second)


def test_each_hidden_patch_is_drawn_equally_often():
    """4000 draws of 4 out of 12: each place 4000 / 3 times, with a standard deviation of 30."""
    decoder = CrossDecoder(IN, OUT, (4, 4), 0, **SIZES)
    mask = torch.arange(16).expand(4000, -1) % 4 != 0
    where = decoder._draw(mask, 4, sample_keys(3, 0, torch.arange(4000)))
    counts = torch.bincount(where.flatten(), minlength=16)[mask[0]].double()
    assert counts.sum() == 16000
    assert float((counts - 4000 / 3).abs().max()) < 150
    # It does not repeat the draw of the mask: two purposes, two streams.
    masked = RandomMasking(0.75)(sample_keys(3, 0, torch.arange(4000)), (4, 4))
    where = decoder._draw(masked, 4, sample_keys(3, 0, torch.arange(4000)))
    assert float((torch.bincount(where.flatten(), minlength=16) - 1000).abs().max()) < 150


@pytest.mark.parametrize(
    "make",
    [
        lambda: CrossDecoder(IN, OUT, GRID, PREFIX, **SIZES),
        lambda: CrossDecoder(IN, OUT, GRID, PREFIX, **SIZES, latents="per_block"),
        lambda: PromptDecoder(IN, OUT, GRID, PREFIX, **SIZES),
    ],
)
def test_gradients_reach_every_parameter_and_the_latents(make):
    decoder = shaken(make())
    given = [latent().requires_grad_() for _ in range(decoder.n_latents)]
    values, _ = decoder(given if decoder.n_latents > 1 else given[0], MASK, KEYS)
    values.square().sum().backward()
    assert [n for n, p in decoder.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(bool(x.grad.abs().sum(-1).gt(0).all()) for x in given)  # every token is read


def test_the_prompt_is_not_changed_by_the_mask_tokens():
    decoder = shaken(PromptDecoder(IN, OUT, GRID, PREFIX, **SIZES))
    given = latent()
    before = decoder(given, MASK)[0]
    decoder.mask_token.data += torch.randn_like(decoder.mask_token)  # a constant would be lost in the norms
    after = decoder(given, MASK)[0]
    assert torch.equal(before[~MASK], after[~MASK])
    assert not torch.isclose(before[MASK], after[MASK]).all(-1).any()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: CrossDecoder(IN, OUT, GRID, PREFIX, 16, 0, 2), "0 blocks"),
        (lambda: CrossDecoder(IN, OUT, GRID, PREFIX, 16, 2, 3), "heads that divide"),
        (lambda: PromptDecoder(IN, OUT, GRID, PREFIX, 16, 2, 3), "heads that divide"),
        (lambda: CrossDecoder(IN, OUT, GRID, PREFIX, **SIZES, share=0.0), "predict_share is 0.0"),
        (
            lambda: CrossDecoder(IN, OUT, GRID, PREFIX, **SIZES, share=0.9)(
                torch.randn(3, PREFIX + N_VISIBLE, IN), MASK
            ),
            "is 22, but 18 are hidden",
        ),
    ],
)
def test_what_cannot_be_built_is_refused(make, says):
    with pytest.raises(LaminaError, match=says):
        make()
