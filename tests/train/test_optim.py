"""Learning rates against MAE's own formula; parameter groups; a skipped step leaves no trace."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from lamina.core.errors import LaminaError
from lamina.core.interfaces import ParamOverride
from lamina.train.optim import (
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    set_learning_rate,
    step_unless,
)
from lamina.train.optim_options import OptimOptions
from lamina.train.options import TrainOptions, plan_run
from lamina.train.param_groups import check_cover, layer_scales, param_groups
from lamina.train.schedule import learning_rate, warmup_warning
from lamina.train.state import Outcome


def mae_rate(iteration: int, per_epoch: int, epochs: int, warmup: int, blr: float, batch: int, low: float):
    """util/lr_sched.py of facebookresearch/mae in its own words."""
    lr = blr * batch / 256
    epoch = iteration % per_epoch / per_epoch + iteration // per_epoch
    if epoch < warmup:
        return lr * epoch / warmup
    return low + (lr - low) * 0.5 * (1.0 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))


@pytest.mark.parametrize(("epochs", "warmup", "low"), [(20, 4, 0.0), (10, 0, 1e-6), (5, 4, 1e-5)])
def test_cosine_is_that_of_mae(epochs: int, warmup: int, low: float) -> None:
    options = OptimOptions(base_lr=1.5e-4, warmup_epochs=warmup, min_lr=low)
    ours = [
        learning_rate(i, total_steps=epochs * 17, steps_per_epoch=17.0, batch_size=4096, options=options)
        for i in range(epochs * 17)
    ]
    theirs = [mae_rate(i, 17, epochs, warmup, 1.5e-4, 4096, low) for i in range(epochs * 17)]
    assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-18)
    if warmup:
        assert ours[0] == 0.0


def test_multistep_drops_at_fractions_of_the_run() -> None:
    options = OptimOptions(base_lr=1e-3, warmup_epochs=1, schedule="multistep", milestones=(0.5, 0.9))
    rates = [
        learning_rate(i, total_steps=100, steps_per_epoch=10.0, batch_size=512, options=options)
        for i in range(100)
    ]
    assert rates[:10] == pytest.approx([2e-3 * i / 10 for i in range(10)])
    assert rates[10:50] == [2e-3] * 40
    assert rates[50:90] == pytest.approx([2e-4] * 40)
    assert rates[90:] == pytest.approx([2e-5] * 10)


def test_a_run_without_warmup_end_is_told() -> None:
    assert warmup_warning(OptimOptions(warmup_epochs=40), 20, 10.0) is not None
    assert warmup_warning(OptimOptions(warmup_epochs=1), 20, 10.0) is None
    assert warmup_warning(OptimOptions(warmup_epochs=40, warmup_steps=5), 20, 10.0) is None
    assert warmup_warning(OptimOptions(warmup_steps=20), 20, 10.0) is not None


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("warmup", [{"warmup_epochs": 3.0}, {"warmup_steps": 4}, {"warmup_epochs": 0.0}])
def test_a_run_in_which_no_step_has_a_rate_is_told(steps: int, warmup: dict) -> None:
    options = OptimOptions(**warmup)
    rates = [
        learning_rate(i, total_steps=steps, steps_per_epoch=2.0, batch_size=8, options=options)
        for i in range(steps)
    ]
    said = warmup_warning(options, steps, 2.0) or ""
    assert said.startswith("nothing is trained") == (max(rates) == 0)
    outcome = Outcome("finished", steps, steps, Path("x"), {"lr_sum": sum(rates)})
    assert ("nothing was trained" in outcome.sentence) == (max(rates) == 0)
    assert "base_lr is 0" in str(warmup_warning(replace(options, base_lr=0.0), steps, 2.0))


def test_plan_counts_steps_across_epochs() -> None:
    plan = plan_run(TrainOptions(epochs=2.0, batch_size=4), n_samples=26)
    assert (plan.total_steps, plan.steps_per_epoch, plan.epoch(13)) == (13, 6.5, 2.0)
    assert plan_run(TrainOptions(epochs=0.3, batch_size=10), n_samples=100).total_steps == 3
    assert plan_run(TrainOptions(max_steps=7), n_samples=5).total_steps == 7


@pytest.mark.parametrize(
    "change",
    [{"batch_size": 0}, {"max_steps": 0}, {"log_every_steps": -1}, {"keep_checkpoints": 0}, {"epochs": 0}],
)
def test_options_that_make_no_run(change: dict) -> None:
    with pytest.raises(LaminaError):
        plan_run(TrainOptions(**change), n_samples=26)


class Fused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.ones(6))
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.override: dict[str, ParamOverride] = {"logits": ParamOverride(lr_scale=100.0, weight_decay=True)}

    def optim_overrides(self) -> dict[str, ParamOverride]:
        return self.override


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.fusion = Fused()
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.linear.weight


def test_groups_follow_the_rule_and_the_overrides() -> None:
    groups = param_groups(Model(), 0.05, lr_scales={"norm.weight": 0.5})
    found = {(g["lr_scale"], g["weight_decay"]): g["names"] for g in groups}
    assert found == {
        (1.0, 0.05): ["linear.weight", "fusion.token"],
        (1.0, 0.0): ["linear.bias", "norm.bias"],
        (0.5, 0.0): ["norm.weight"],
        (100.0, 0.05): ["fusion.logits"],
    }


def test_groups_cover_all_trainable_parameters_once() -> None:
    model = Model()
    groups = param_groups(model, 0.05)
    held = [p for g in groups for p in g["params"]]
    assert {id(p) for p in held} == {id(p) for p in model.parameters() if p.requires_grad}
    assert len(held) == len({id(p) for p in held})
    twice = [*groups, {"params": [model.norm.bias]}]
    for wrong in (
        groups[1:],
        twice,
        [*groups, {"params": [model.frozen.bias]}],
        [*groups, {"params": [torch.ones(1)]}],
    ):
        with pytest.raises(LaminaError):
            check_cover(model, wrong)


def test_overrides_and_scales_of_unknown_parameters_are_refused() -> None:
    model = Model()
    with pytest.raises(LaminaError, match="no trainable parameter"):
        param_groups(model, 0.05, lr_scales={"frozen.weight": 0.5})
    model.fusion.override = {"logit": ParamOverride()}
    with pytest.raises(LaminaError, match="logit"):
        param_groups(model, 0.05)


def test_a_scaled_rate_is_that_of_a_group_of_its_own() -> None:
    ours, theirs = Model(), Model()
    theirs.load_state_dict(ours.state_dict())
    optimizer = build_optimizer(ours, OptimOptions(weight_decay=0.1))
    plain = torch.optim.AdamW(
        [
            {"params": [theirs.linear.weight, theirs.fusion.token], "weight_decay": 0.1},
            {"params": [theirs.linear.bias, theirs.norm.weight, theirs.norm.bias], "weight_decay": 0.0},
            {"params": [theirs.fusion.logits], "lr": 0.3, "weight_decay": 0.1},
        ],
        lr=0.003, betas=(0.9, 0.95),
    )  # fmt: skip
    for seed in range(3):
        for model in (ours, theirs):
            generator = torch.Generator().manual_seed(seed)
            for p in model.parameters():
                p.grad = torch.randn(p.shape, generator=generator) if p.requires_grad else None
        set_learning_rate(optimizer, 0.003)
        optimizer.step()
        plain.step()
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name]), name


@pytest.mark.parametrize("fused", [False, True])
def test_a_skipped_step_leaves_every_byte(fused: bool) -> None:
    model = Model()
    optimizer = build_optimizer(model, OptimOptions(), fused=fused)
    set_learning_rate(optimizer, 0.1)
    for skip in (0.0, 1.0, 1.0, 0.0):
        for p in model.parameters():
            p.grad = torch.full_like(p, math.nan if skip else 1.0) if p.requires_grad else None
        weights = {k: v.clone() for k, v in model.state_dict().items()}
        moments = {k: v.clone() for k, v in optimizer_tensors(optimizer).items()}
        step_unless(optimizer, torch.tensor(skip))
        same = [torch.equal(v, weights[k]) for k, v in model.state_dict().items() if "frozen" not in k]
        same += [torch.equal(v, moments[k]) for k, v in optimizer_tensors(optimizer).items()]
        assert all(same) if skip else not any(same)
    assert {float(v) for k, v in optimizer_tensors(optimizer).items() if k.endswith(".step")} == {2.0}


@pytest.mark.parametrize("fused", [False, True])
def test_optimizer_state_goes_by_name(fused: bool) -> None:
    model = Model()
    optimizer = build_optimizer(model, OptimOptions(), fused=fused)
    saved = {k: torch.full_like(v, 3.0) for k, v in optimizer_tensors(optimizer).items()}
    assert "fusion.logits.exp_avg_sq" in saved
    load_optimizer_tensors(optimizer, saved)
    assert all(torch.equal(v, saved[k]) for k, v in optimizer_tensors(optimizer).items())
    with pytest.raises(LaminaError, match="one side only"):
        load_optimizer_tensors(optimizer, {k: v for k, v in saved.items() if "token" not in k})


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(LaminaError, match="nothing to train"):
        build_optimizer(nn.Linear(2, 2).requires_grad_(False), OptimOptions())


@pytest.mark.parametrize(("warmup", "power", "low"), [(0, 1.0, 0.0), (10, 0.9, 1e-5)])
def test_poly_is_that_of_mmsegmentation(warmup: int, power: float, low: float) -> None:
    options = OptimOptions(base_lr=1e-2, schedule="poly", power=power, min_lr=low, warmup_steps=warmup)
    for i in (0, 3, 9, 10, 50, 99):
        ours = learning_rate(i, total_steps=100, steps_per_epoch=7.0, batch_size=16, options=options)
        peak = 1e-2 * 16 / 256
        regular = (peak - low) * (1 - i / 100) ** power + low
        assert ours == pytest.approx(regular * (min(1, i / warmup) if warmup else 1))


def lars_by_hand(w, g, buffer, lr, momentum, trust, wd, adapts):
    """You et al., arXiv 1708.03888, equation 6 and algorithm 1, for one tensor; at weight decay 0 it is also
    util/lars.py of facebookresearch/mae."""
    ratio = trust * w.norm() / (g.norm() + wd * w.norm()) if adapts else 1.0
    buffer = momentum * buffer + ratio * (g + wd * w)
    return w - lr * buffer, buffer


@pytest.mark.parametrize("wd", [0.0, 0.01])
def test_lars_is_the_step_by_hand(wd: float) -> None:
    head = nn.Linear(5, 3)
    options = OptimOptions(kind="lars", weight_decay=wd, momentum=0.9, trust=0.001)
    optimizer = build_optimizer(head, options)
    w, b = head.weight.detach().clone(), head.bias.detach().clone()
    w_buffer, b_buffer = torch.zeros_like(w), torch.zeros_like(b)
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        gw, gb = torch.randn(3, 5, generator=generator), torch.randn(3, generator=generator)
        head.weight.grad, head.bias.grad = gw.clone(), gb.clone()
        set_learning_rate(optimizer, 6.4)
        step_unless(optimizer, torch.tensor(0.0))
        w, w_buffer = lars_by_hand(w, gw, w_buffer, 6.4, 0.9, 0.001, wd, adapts=True)
        b, b_buffer = lars_by_hand(b, gb, b_buffer, 6.4, 0.9, 0.001, 0.0, adapts=False)
        torch.testing.assert_close(head.weight.detach(), w, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(head.bias.detach(), b, rtol=1e-5, atol=1e-6)
    assert sorted(optimizer_tensors(optimizer)) == ["bias.momentum_buffer", "weight.momentum_buffer"]
    kept = {k: v.clone() for k, v in optimizer_tensors(optimizer).items()}
    head.weight.grad = torch.full_like(head.weight, math.nan)
    before = head.weight.detach().clone()
    step_unless(optimizer, torch.tensor(1.0))
    assert torch.equal(head.weight, before)
    assert all(torch.equal(v, kept[k]) for k, v in optimizer_tensors(optimizer).items())


def test_tokens_may_be_spared_from_decay() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
            self.pos_embed = nn.Parameter(torch.zeros(1, 5, 4))
            self.proj = nn.Linear(4, 4)

    for decay, spared in ((True, {"proj.bias"}), (False, {"cls_token", "pos_embed", "proj.bias"})):
        groups = param_groups(Tokens(), 0.05, decay_tokens=decay)
        assert {n for g in groups if g["weight_decay"] == 0 for n in g["names"]} == spared


def test_layers_decay_from_the_top() -> None:
    class Layered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.block, self.head = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)

        def layer_ids(self) -> dict[str, int]:
            layers = {"embed": 0, "block": 1, "head": 2}
            return {name: layers[name.split(".")[0]] for name, _ in self.named_parameters()}

    assert layer_scales(Layered(), 0.5)["embed.weight"] == 0.25
    optimizer = build_optimizer(Layered(), OptimOptions(layer_decay=0.5))
    scales = {n: g["lr_scale"] for g in optimizer.param_groups for n in g["names"]}
    assert {scales[f"{name}.weight"] for name in ("embed", "block", "head")} == {0.25, 0.5, 1.0}
    with pytest.raises(LaminaError, match="no layers to decay"):
        build_optimizer(nn.Linear(2, 2), OptimOptions(layer_decay=0.5))
