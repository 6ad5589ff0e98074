"""MFF against the formula written out, its taps, and what it reports."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lamina.core.errors import LaminaError
from lamina.fusion.build import build_fusion
from lamina.fusion.last_layer import LastLayer
from lamina.fusion.mff import MultiLevelFusion
from lamina.fusion.options import FusionOptions, resolve_layers
from lamina.train.optim import build_optimizer, set_learning_rate
from lamina.train.optim_options import OptimOptions
from lamina.train.param_groups import param_groups

WIDTH, DEPTH = 12, 12


def features(n: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 5, WIDTH) for _ in range(n)]


def shaken(module: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return module


@pytest.mark.parametrize("projection", ["none", "linear", "mlp"])
def test_average_is_the_formula(projection):
    fusion = shaken(MultiLevelFusion(WIDTH, DEPTH, projection=projection))
    norm, x = shaken(nn.LayerNorm(WIDTH)), features(6)
    assert fusion.layers == (0, 2, 4, 6, 8, 11)
    logits = fusion.pool.logits.tolist()
    total = sum(torch.tensor(logits).exp().tolist())
    expected = torch.zeros_like(x[0])
    shares = []
    for i, tap in enumerate(x):
        projected = tap
        if i < 5 and projection == "linear":
            p = fusion.projections[i]
            projected = tap @ p.weight.T + p.bias
        elif i < 5 and projection == "mlp":
            first, _, last = fusion.projections[i]
            inner = tap @ first.weight.T + first.bias
            projected = 0.5 * inner * (1 + torch.erf(inner / 2**0.5)) @ last.weight.T + last.bias
        term = float(torch.tensor(logits[i]).exp() / total) * projected
        shares.append(term.norm(dim=-1).mean())
        expected = expected + term
    torch.testing.assert_close(fusion(x, norm), norm(expected), rtol=1e-5, atol=1e-5)
    measured = fusion.measure(x)
    torch.testing.assert_close(measured["fusion_weights"], torch.tensor(logits).exp() / total)
    torch.testing.assert_close(measured["fusion_shares"], torch.stack(shares) / sum(shares))


@pytest.mark.parametrize("projection", ["none", "linear"])
def test_attention_is_attention_over_the_taps(projection):
    fusion = shaken(MultiLevelFusion(WIDTH, DEPTH, projection=projection, pooling="attention", heads=3))
    x = features(6)
    taps = torch.stack([p(t) for p, t in zip(fusion.projections, x, strict=False)] + [x[-1]], dim=2).flatten(
        0, 1
    )
    peer = nn.MultiheadAttention(WIDTH, 3, batch_first=True)
    pool = fusion.pool
    peer.in_proj_weight.data = torch.cat([pool.q.weight, pool.k.weight, pool.v.weight])
    peer.in_proj_bias.data = torch.cat([pool.q.bias, pool.k.bias, pool.v.bias])
    peer.out_proj.load_state_dict(pool.out.state_dict())
    expected, weights = peer(x[-1].flatten(0, 1)[:, None], taps, taps)
    torch.testing.assert_close(fusion(x, nn.Identity()), expected[:, 0].reshape(2, 5, WIDTH))
    measured = fusion.measure(x)
    torch.testing.assert_close(measured["fusion_weights"], weights.mean((0, 1)))
    assert float(measured["fusion_shares"].sum()) == pytest.approx(1)


def test_terms_of_attention_add_up_to_the_output():
    fusion = shaken(MultiLevelFusion(WIDTH, DEPTH, pooling="attention", heads=3))
    x = features(6)
    _, terms = fusion.pool.parts(x, fusion.projections)
    torch.testing.assert_close(sum(terms) + fusion.pool.out.bias, fusion(x, nn.Identity()))


def test_starts_with_equal_weights():
    measured = MultiLevelFusion(WIDTH, DEPTH).measure(features(6))
    assert measured["fusion_weights"].tolist() == pytest.approx([1 / 6] * 6)


def test_last_layer_is_the_norm_of_it():
    norm = shaken(nn.LayerNorm(WIDTH))
    x = features(1)
    last = build_fusion(FusionOptions(kind="none"), WIDTH, DEPTH)
    assert isinstance(last, LastLayer)
    assert last.layers == (11,)
    assert torch.equal(last(x, norm), norm(x[0]))


@pytest.mark.parametrize(
    ("layers", "depth", "taps"),
    [
        ("default", 12, (0, 2, 4, 6, 8, 11)),
        ("default", 24, (0, 4, 8, 12, 16, 23)),
        ("default", 6, (0, 1, 2, 3, 4, 5)),
        ("odd", 12, (1, 3, 5, 7, 9, 11)),
        ("all", 4, (0, 1, 2, 3)),
        ((11,), 12, (11,)),
        ((3, 11), 12, (3, 11)),
    ],
)
def test_taps(layers, depth, taps):
    assert resolve_layers(layers, depth) == taps


@pytest.mark.parametrize(
    ("layers", "depth", "says"),
    [
        ("default", 4, "twice"),
        ((0, 5), 12, "the last of them 11"),
        ((5, 0, 11), 12, "ascend"),
        ((-1, 11), 12, "ascending order from 0 to 11"),
    ],
)
def test_taps_that_make_no_sense(layers, depth, says):
    with pytest.raises(LaminaError, match=says):
        resolve_layers(layers, depth)


@pytest.mark.parametrize("decay", [True, False])
def test_the_logits_have_their_own_rate_and_decay(decay):
    fusion = MultiLevelFusion(WIDTH, DEPTH, logit_lr_scale=7.0, logit_weight_decay=decay)
    group = next(g for g in param_groups(fusion, 0.05) if any(p is fusion.pool.logits for p in g["params"]))
    assert group["lr_scale"] == 7.0
    assert group["weight_decay"] == (0.05 if decay else 0.0)


@pytest.mark.parametrize("informative", [0, 2, 5])
def test_one_informative_tap_gets_more_than_half_of_the_weight(informative):
    """Only one tap carries the answer; the logits alone are trained, at the loop's own rates, sum 0.15 x 100."""
    fusion = MultiLevelFusion(WIDTH, DEPTH, projection="none", logit_lr_scale=100.0)
    torch.manual_seed(0)
    readout = torch.randn(WIDTH, 3) / WIDTH**0.5
    optimizer = build_optimizer(fusion, OptimOptions())
    for _ in range(150):
        set_learning_rate(optimizer, 1e-3)
        x = [torch.randn(8, 5, WIDTH) for _ in range(6)]
        loss = F.mse_loss(fusion(x, nn.Identity()) @ readout, x[informative] @ readout)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(fusion.measure(x)["fusion_weights"][informative]) > 0.5
