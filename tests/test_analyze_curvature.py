"""Ends, trace and density of a Hessian against the dense matrix of a small masked autoencoder, in float64."""

import json

import pytest
import torch
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

import lamina
from lamina.analyze.curvature import (
    HessianOperator,
    extremes,
    hutchinson,
    power_iteration,
    spectral_density,
)
from lamina.analyze.hessian import analyze_hessian
from lamina.batch import Batch
from lamina.encoder import EncoderOptions, build_vit
from lamina.errors import LaminaError
from lamina.rng import sample_keys


def task_of(fusion=None):
    torch.manual_seed(0)
    sizes = {"image_size": (8, 8), "patch_size": 4, "width": 8, "depth": 1, "heads": 2, "in_chans": 1}
    decoder = {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
    return lamina.mae(build_vit(EncoderOptions(**sizes)), fusion, 0.5, **decoder).double()


def batch_of():
    torch.manual_seed(1)
    return Batch(torch.rand(3, 1, 8, 8, dtype=torch.float64), sample_keys(0, 0, torch.arange(3)))


@pytest.fixture(scope="module")
def dense():
    """The Hessian row by row: the gradient of each entry of the gradient."""
    task = task_of().eval()
    own = {id(p) for p in task.encoder.vit.parameters()}
    chosen = {n: p for n, p in task.named_parameters() if id(p) in own and p.requires_grad}
    views = {n: p.detach().clone().requires_grad_() for n, p in chosen.items()}
    with sdpa_kernel(SDPBackend.MATH):
        loss = functional_call(task, {**dict(task.named_parameters()), **views}, (batch_of(),))["loss"]
    gradient = torch.autograd.grad(loss, list(views.values()), create_graph=True)
    flat = torch.cat([g.reshape(-1) for g in gradient])
    rows = [
        torch.autograd.grad(g, list(views.values()), retain_graph=True, materialize_grads=True) for g in flat
    ]
    return torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])


@pytest.fixture(scope="module")
def operator():
    return HessianOperator(task_of(), batch_of())


def test_products_are_those_of_the_matrix(dense, operator):
    assert operator.n == len(dense) < 2000
    torch.testing.assert_close(dense, dense.T, rtol=1e-9, atol=1e-12)
    for i in range(3):
        v = operator.normal(i)
        torch.testing.assert_close(operator(v), dense @ v, rtol=1e-9, atol=1e-12)


def test_both_ends_of_the_spectrum(dense, operator):
    exact = torch.linalg.eigvalsh(dense)
    top, bottom = extremes(operator, operator.normal(1), lambda i: operator.normal(2, i), 5, 1, 1e-9, 400)
    expected = exact.flip(0)[:5].tolist()
    assert [e.value for e in top] == pytest.approx(expected, rel=1e-6)
    assert bottom[0].value == pytest.approx(float(exact[0]), rel=1e-6)
    assert all(e.converged and e.residual < 1e-6 for e in (*top, *bottom))


def test_power_iteration_finds_the_largest_magnitude(dense, operator):
    exact = torch.linalg.eigvalsh(dense)
    largest = exact[exact.abs().argmax()]
    (found,) = power_iteration(operator, lambda i: operator.normal(3, i), tol=1e-10, max_products=2000)
    assert found.converged
    assert found.value == pytest.approx(float(largest), rel=1e-5)
    assert power_iteration(operator, lambda i: operator.normal(3, i), max_products=1)[0].converged is False


def test_trace_and_density(dense, operator):
    exact = torch.linalg.eigvalsh(dense)
    trace = hutchinson(operator, lambda i: operator.signs(4, i), 200)
    assert abs(trace.value - float(exact.sum())) < 5 * trace.standard_error
    signs = [operator.signs(5, i) for i in range(3)]
    density = spectral_density(operator, lambda i: signs[i], lambda i: operator.normal(6, i), 3, 8)
    assert sum(density.weights) == pytest.approx(1)
    for k in (1, 2, 3):  # exact for these vectors
        power = torch.linalg.matrix_power(dense, k)
        expected = sum(float(z @ power @ z) / len(dense) for z in signs) / 3
        assert density.moment(k) == pytest.approx(expected, rel=1e-8)


def test_weight_decay_adds_to_the_diagonal_of_what_decays(dense):
    decayed = HessianOperator(task_of(), batch_of(), weight_decay=0.5)
    v = decayed.normal(1)
    added = decayed(v) - dense @ v
    share = added / v
    assert set(share.mul(2).round().int().tolist()) == {0, 1}
    torch.testing.assert_close(share, share.mul(2).round() / 2, rtol=1e-6, atol=1e-6)


def test_nothing_of_the_task_changes():
    task = task_of().train()
    before = {name: p.clone() for name, p in task.state_dict().items()}
    asked = {name: p.requires_grad for name, p in task.named_parameters()}
    batch = batch_of()
    state = torch.get_rng_state()
    operator = HessianOperator(task, batch)
    operator(operator.normal(0))
    assert torch.equal(state, torch.get_rng_state())
    assert task.training
    assert all(torch.equal(before[name], p) for name, p in task.state_dict().items())
    assert asked == {name: p.requires_grad for name, p in task.named_parameters()}
    assert all(p.grad is None for p in task.parameters())


def test_a_fusion_is_no_part_of_the_encoders_hessian():
    fused = task_of(lamina.MultiLevelFusion(8, 1, "all"))
    assert HessianOperator(fused, batch_of()).names == HessianOperator(task_of(), batch_of()).names
    whole = HessianOperator(fused, batch_of(), "all")
    assert any(name.startswith("decoder.") for name in whole.names)


def test_what_cannot_be_derived_says_so():
    task = task_of()
    for parameter in task.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(LaminaError, match="nothing is trained"):
        HessianOperator(task, batch_of())
    with pytest.raises(LaminaError, match="no lamina encoder"):
        HessianOperator(torch.nn.Linear(2, 2), batch_of())
    operator = HessianOperator(task_of(), batch_of())
    with pytest.raises(LaminaError, match="ask for 1 to all"):
        extremes(operator, operator.normal(0), operator.normal, 0, 0)


def test_models_are_compared_on_the_same_batches(tmp_path, dense):
    fused = task_of(lamina.MultiLevelFusion(8, 1, "all"))
    tasks = {"MAE": task_of(), "MAE + MFF": fused}
    result = analyze_hessian(tasks, [batch_of(), batch_of()], top=2, trace_probes=4, tol=1e-8)
    exact = torch.linalg.eigvalsh(dense)
    assert result.maxima("MAE") == pytest.approx([float(exact[-1])] * 2, rel=1e-6)
    assert result.n_parameters == {"MAE": len(dense), "MAE + MFF": len(dense)}
    row = result.models["MAE"][0]
    assert row.top[0].value > row.top[1].value > 0 > row.bottom[0].value
    assert abs(row.magnitude.value) == pytest.approx(float(exact.abs().max()), rel=0.05)
    assert row.trace is not None
    again = analyze_hessian(tasks, [batch_of(), batch_of()], top=2, trace_probes=4, tol=1e-8)
    assert json.dumps(again.to_json()) == json.dumps(result.to_json())
    result.plot().savefig(tmp_path / "hessian.svg")
    assert (
        "mini-batches" in (tmp_path / "hessian.svg").read_text()
        or (tmp_path / "hessian.svg").stat().st_size > 5000
    )
    with pytest.raises(LaminaError, match="a batch of images"):
        analyze_hessian({}, [])
