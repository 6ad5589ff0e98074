"""Ends, trace and density of a Hessian against the dense matrix of small ViTs, in float64."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, jacfwd
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import lamina
from lamina.analyze.catalog import HessianOptions
from lamina.analyze.curvature.attention import TwiceDifferentiable, attend
from lamina.analyze.curvature.density import hutchinson, pooled, spectral_density
from lamina.analyze.curvature.lanczos import extremes
from lamina.analyze.curvature.operator import HessianOperator
from lamina.analyze.curvature.power import power_iteration
from lamina.analyze.hessian import analyze_hessian
from lamina.analyze.hessian_plot import draw, summarize
from lamina.cli.progress import AnalysisBar
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.rng import sample_keys
from lamina.encoder.build import build_vit, wrap_vit
from lamina.encoder.options import EncoderOptions
from lamina.fusion.last_layer import LastLayer
from lamina.supervised.classifier import Supervised
from lamina.supervised.options import SupervisedOptions

torch.set_num_threads(1)
SIZES = {"image_size": (8, 8), "patch_size": 4, "width": 8, "depth": 1, "heads": 2, "in_chans": 1}


def task_of(fusion=None):
    torch.manual_seed(0)
    decoder = {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
    return lamina.mae(build_vit(EncoderOptions(**SIZES)), fusion, 0.5, **decoder).double()


def classifier_of():
    torch.manual_seed(0)
    options = EncoderOptions(**SIZES)
    encoder = wrap_vit(build_vit(options), options)
    mixing = SupervisedOptions(mixup=0.8, cutmix=0.0, smoothing=0.2)
    task = Supervised(encoder, LastLayer(encoder.depth), 3, mixing).double()
    for parameter in task.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return task


def batch_of(labels=None):
    torch.manual_seed(1)
    images = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    return Batch(images, sample_keys(0, 0, torch.arange(3)), labels=labels)


def hessian_of(task, batch, names, penalty=lambda parameters: 0.0):
    """By torch.func, forward over reverse, of the loss plus a penalty over the named parameters.

    Not `torch.func.hessian`: forward over a vectorised reverse is wrong where a layer norm's input and weight
    both vary (pytorch/functorch#534; torch 2.14), by 2 % of the largest entry here.
    """
    everything = {name: p.detach() for name, p in task.named_parameters()}
    shapes = [everything[name].shape for name in names]
    counts = [shape.numel() for shape in shapes]

    def loss(flat):
        parts = torch.split(flat, counts)
        chosen = {n: x.view(s) for n, s, x in zip(names, shapes, parts, strict=True)}
        return functional_call(task, {**everything, **chosen}, (batch,))["loss"] + penalty(chosen)

    flat = torch.cat([everything[name].reshape(-1) for name in names])
    with sdpa_kernel(SDPBackend.MATH):
        return jacfwd(grad(loss))(flat).detach()


@pytest.fixture(scope="module")
def operator():
    return HessianOperator(task_of(), batch_of())


@pytest.fixture(scope="module")
def dense(operator):
    return hessian_of(task_of().eval(), batch_of(), operator.names)


def test_products_are_those_of_the_matrix(dense, operator):
    assert 1000 <= operator.n == len(dense) < 2000
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


SPECTRA = {
    "a small negative end": ([2000.0], [-1.5], 1),
    "a negative end by its own scale": ([1000.0, 300.0, 2.0], [-0.4, -0.2], 2),
    "small values behind a large one": ([1000.0, 3.0, 2.0, 1.0, 0.5], [], 0),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_each_value_is_judged_by_its_own_scale(spectrum, dtype):
    """A diagonal matrix, whose eigenvalues stand in it, with a mass of others about zero as Hessians have it."""
    above, below, bottom = SPECTRA[spectrum]
    mass = torch.linspace(-1e-3, 1e-3, 2000, dtype=torch.float64)
    diagonal = torch.cat([torch.tensor([*above, *below], dtype=torch.float64), mass]).to(dtype)
    start = torch.randn(len(diagonal), generator=torch.Generator().manual_seed(0)).to(dtype)
    ends = extremes(lambda v: diagonal * v, start, lambda i: start.flip(0), len(above), bottom)
    assert [each.converged for end in ends for each in end] == [True] * (len(above) + bottom)
    assert [each.value for each in ends[0]] == pytest.approx(above, rel=1e-3)
    assert [each.value for each in ends[1]] == pytest.approx(below[:bottom], rel=1e-3)


def test_what_has_not_settled_by_its_own_scale_is_said():
    """The values of a semidefinite matrix end in zeros: found exactly where they are few, else not claimed."""
    few = torch.tensor([5.0, 2.0, 1.0, *[0.0] * 40], dtype=torch.float64)
    start = torch.ones(len(few), dtype=torch.float64)
    top, _ = extremes(
        lambda v: few * v, start, lambda i: torch.eye(len(few), dtype=torch.float64)[3 + i], 5, 0
    )
    assert [each.value for each in top] == pytest.approx([5, 2, 1, 0, 0], abs=1e-12)
    assert all(each.converged for each in top)
    many = torch.cat([torch.tensor([1000.0]), torch.linspace(0, 1, 3000)]).double()
    start = torch.randn(len(many), generator=torch.Generator().manual_seed(0)).double()
    (largest,), (least,) = extremes(lambda v: many * v, start, lambda i: start, 1, 1, max_products=30)
    assert largest.converged
    assert not least.converged


def test_power_iteration_finds_the_largest_magnitude(dense, operator):
    exact = torch.linalg.eigvalsh(dense)
    largest = exact[exact.abs().argmax()]
    (found,) = power_iteration(operator, lambda i: operator.normal(3, i), tol=1e-10, max_products=2000)
    assert found.converged
    assert found.value == pytest.approx(float(largest), rel=1e-5)
    assert power_iteration(operator, lambda i: operator.normal(3, i), max_products=1)[0].converged is False


def test_power_iteration_with_deflation_finds_the_next_ones(dense, operator):
    """Largest magnitudes of both signs, one after the other."""
    exact = torch.linalg.eigvalsh(dense)
    expected = exact[exact.abs().argsort(descending=True)][:3]
    assert (expected > 0).any()
    found = power_iteration(operator, lambda i: operator.normal(3, i), 3, tol=1e-12, max_products=4000)
    assert [each.value for each in found] == pytest.approx(expected.tolist(), rel=1e-4)


def test_power_iteration_stops_by_pyhessians_rule():
    """Of diag(2, 1) from (1, 1) the k-th quotient is (2·4^k + 1) / (4^k + 1); the first that differs from the one
    before by less than a thousandth of it ends the search, and the one before is the value."""
    quotients = [(2 * 4**k + 1) / (4**k + 1) for k in range(20)]
    last = next(k for k in range(1, 20) if abs(quotients[k] - quotients[k - 1]) / quotients[k - 1] < 1e-3)
    asked = []

    def product(v):
        asked.append(v)
        return torch.tensor([2.0, 1.0], dtype=torch.float64) * v

    (found,) = power_iteration(product, lambda i: torch.ones(2, dtype=torch.float64))
    assert len(asked) == last + 1
    assert found.value == pytest.approx(quotients[last - 1], rel=1e-5)  # it divides by a norm plus 1e-6
    assert found.converged


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
    other = spectral_density(operator, lambda i: signs[2 - i], lambda i: operator.normal(6, i), 1, 8)
    both = pooled([density, other])
    assert both.probes == 4
    assert both.moment(2) == pytest.approx((density.moment(2) + other.moment(2)) / 2)
    x = np.linspace(min(both.nodes) - 5, max(both.nodes) + 5, 20000)
    assert np.trapezoid(both.at(x, 0.5), x) == pytest.approx(1, abs=1e-6)


def test_weight_decay_adds_to_the_diagonal_of_what_decays(dense):
    decayed = HessianOperator(task_of(), batch_of(), weight_decay=0.5)
    v = decayed.normal(1)
    added = decayed(v) - dense @ v
    share = added / v
    assert set(share.mul(2).round().int().tolist()) == {0, 1}
    torch.testing.assert_close(share, share.mul(2).round() / 2, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mixed", [False, True])
def test_a_classifiers_hessian_is_that_of_its_likelihood_and_l2(mixed):
    """Mixed, with the mixing and smoothing of training; the penalty is over matrices, written out."""
    task, batch, decay = classifier_of().eval(), batch_of(torch.tensor([0, 2, 1])), 0.3
    operator = HessianOperator(task, batch, "all", decay, mixed)

    def penalty(parameters):
        squares = [p.square().sum() for n, p in parameters.items() if p.ndim > 1 and not n.endswith("bias")]
        return decay / 2 * sum(squares)

    task.training = mixed
    dense = hessian_of(task, batch, operator.names, penalty)
    v = operator.normal(0)
    torch.testing.assert_close(operator(v), dense @ v, rtol=1e-5, atol=1e-5)  # logits are float32
    other = HessianOperator(task, batch, "all", decay, not mixed)
    assert float((other(v) - dense @ v).abs().max()) > 0.01
    top, bottom = extremes(operator, v, lambda i: operator.normal(2, i), 5, 1, 1e-6, 400)
    exact = torch.linalg.eigvalsh(dense)
    assert [e.value for e in top] == pytest.approx(exact.flip(0)[:5].tolist(), rel=1e-5)
    assert bottom[0].value == pytest.approx(float(exact[0]), rel=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_attention_has_two_derivatives(bias):
    torch.manual_seed(0)
    q, k, v = (
        torch.randn(2, 2, n, d, dtype=torch.float64, requires_grad=True) for n, d in ((4, 3), (5, 3), (5, 2))
    )
    added = (torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True),) if bias else ()
    given = (q, k, v, *added)
    assert gradcheck(attend, given)
    assert gradgradcheck(attend, given)
    torch.testing.assert_close(attend(*given), F.scaled_dot_product_attention(*given))
    with TwiceDifferentiable():
        ours = F.scaled_dot_product_attention(q, k, v, attn_mask=added[0] if bias else None, scale=0.3)
        masked = F.scaled_dot_product_attention(q, k, v, torch.ones(4, 5, dtype=torch.bool).tril(1))
    assert "_Attention" in type(ours.grad_fn).__name__
    torch.testing.assert_close(ours, F.scaled_dot_product_attention(*given, scale=0.3))
    grads = torch.autograd.grad(masked.square().sum(), q, create_graph=True)
    torch.autograd.grad(grads[0].sum(), k)  # what is left to torch has two derivatives as well


class Peak(TorchDispatchMode):
    """The most bytes that were held at a time in storages that were made meanwhile."""

    def __init__(self):
        super().__init__()
        self.most, self._held = 0, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self._held[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self._held = {key: (ref, size) for key, (ref, size) in self._held.items() if not ref.expired()}
        self.most = max(self.most, sum(size for _, size in self._held.values()))
        return result


def test_a_product_needs_twice_a_gradients_memory_at_most():
    """As many heads and tokens to a width as ViT-Ti/16 at 224 px with its published decoder, where it is 1.9
    times as much, and would be 3.2 times with torch's plain attention (here 2.6): what is kept, without the
    vectors and what the allocator holds, which docs/guides/hessian.md counts too."""
    torch.manual_seed(0)
    vit = build_vit(EncoderOptions(image_size=(112, 112), patch_size=16, width=48, depth=3, heads=3))
    task = lamina.mae(vit, None, 0.75, decoder_width=64, decoder_depth=4, decoder_heads=8).eval()
    batch = Batch(torch.rand(8, 3, 112, 112), torch.arange(8))
    own = {id(p) for p in vit.parameters()}
    for parameter in task.parameters():
        parameter.requires_grad_(parameter.requires_grad and id(parameter) in own)
    chosen = [p for p in task.parameters() if p.requires_grad]
    with Peak() as gradient:
        torch.autograd.grad(task(batch)["loss"], chosen)
    with Peak() as product:
        operator = HessianOperator(task, batch)
        v = operator.normal(0)
        operator(v)
    vectors = 4 * v.nbytes  # v, the product by parameters and as one, and one made meanwhile
    assert vectors < gradient.most / 2  # else they would be what is measured
    assert product.most - vectors <= 2 * gradient.most


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
    with pytest.raises(LaminaError, match="from 1 to all"):
        extremes(operator, operator.normal(0), operator.normal, 0, 0)
    with pytest.raises(LaminaError, match="tol is 0"):
        extremes(operator, operator.normal(0), operator.normal, 1, 0, tol=0.0)
    with pytest.raises(LaminaError, match="a batch of images"):
        analyze_hessian({}, [])
    with pytest.raises(LaminaError, match="top is 0"):
        HessianOptions(top=0)


@pytest.fixture(scope="module")
def result():
    tasks = {"MAE": task_of(), "MAE + $MFF$": task_of(lamina.MultiLevelFusion(8, 1, "all"))}
    options = HessianOptions(top=3, power_iterations=2, trace_probes=4, density_probes=3, tol=1e-6)
    batches = [batch_of(), replace(batch_of(), keys=sample_keys(1, 0, torch.arange(3)))]
    result = analyze_hessian(tasks, batches, options)
    alone = analyze_hessian({"MAE": task_of()}, batches[:1], options)
    assert alone.models["MAE"] == result.models["MAE"][:1]
    assert json.loads(json.dumps(result.to_json()))["models"]["MAE"][0]["top"][0]["converged"] is True
    return result


def test_models_are_compared_on_the_same_batches(dense, result):
    exact = torch.linalg.eigvalsh(dense)
    row = result.models["MAE"][0]
    assert [e.value for e in row.top] == pytest.approx(exact.flip(0)[:3].tolist(), rel=1e-6)
    assert row.bottom[0].value == pytest.approx(float(exact[0]), rel=1e-6)
    assert result.maxima("MAE")[0] == row.top[0].value != result.maxima("MAE")[1]  # another mask
    assert result.n_parameters == dict.fromkeys(result.models, len(dense))
    assert row.images == 3
    assert abs(row.magnitude[0].value) == pytest.approx(float(exact.abs().max()), rel=0.05)
    assert len(row.magnitude) == 2
    # The variance of z'Hz is twice what lies off the diagonal.
    off = 2 * (dense.square().sum() - dense.diagonal().square().sum())
    error = float((off / 3).sqrt()) / len(dense)
    assert abs(row.density.moment(1) - float(exact.mean())) < 4 * error
    assert max(row.density.nodes) == pytest.approx(float(exact[-1]), rel=1e-3)
    assert result.density("MAE").probes == 6
    plain = analyze_hessian({"MAE": task_of()}, [batch_of()], HessianOptions(top=1, bottom=0))
    only = plain.models["MAE"][0]
    assert (only.bottom, only.magnitude, only.trace, only.density) == ((), (), None, None)
    assert plain.density("MAE") is None


def test_the_picture_shows_every_eigenvalue(result):
    figure = draw(result)
    top, bottom, density = figure.get_axes()
    for panel, end in ((top, "top"), (bottom, "bottom")):
        shown = np.concatenate(
            [
                points.get_offsets()[:, 0]
                for points in panel.collections
                if len(points.get_offsets()) > 1 or end == "bottom"
            ]
        )
        found = [e.value for rows in result.models.values() for row in rows for e in getattr(row, end)]
        assert set(found) <= set(np.asarray(shown).tolist())
    assert [label.get_text() for label in top.get_yticklabels()] == ["MAE", r"MAE + \$MFF\$"]
    assert "2 mini-batches of 3 images" in top.get_xlabel()
    assert "6 random vectors" in density.get_xlabel()
    assert density.get_yscale() == "log"
    peaks = [line.get_xdata()[line.get_ydata().argmax()] for line in density.get_lines()[:1]]
    nodes, weights = result.density("MAE").nodes, result.density("MAE").weights
    assert peaks[0] == pytest.approx(np.dot(nodes, weights), abs=0.05 * np.ptp(nodes))
    alone = draw(analyze_hessian({"MAE": task_of()}, [batch_of()], HessianOptions(top=1, bottom=0)))
    assert len(alone.get_axes()) == 1


def test_the_table_and_the_bar_tell_what_was_asked(result, capsys):
    told = summarize(result)
    assert told.header[-2:] == ("first by power iteration", "trace")
    assert all(len(row) == len(told.header) for row in told.rows)
    assert told.rows[0][2] == f"{np.median(result.maxima('MAE')):.4g}"
    with AnalysisBar() as bar:
        for batch, products in ((0, 1), (0, 2), (1, 1)):
            bar("mini-batch", batch, 2, f"MAE: {products} products, residual 0.1")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[:2] for line in lines] == [
        ["mini-batch 1 of 2", "MAE: 2 products"],
        ["mini-batch 2 of 2", "MAE: 1 products"],
    ]
