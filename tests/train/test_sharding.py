"""Weights in shares (FSDP2): the same training as with whole ones, the same checkpoints, and refusals."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from helpers.ranks import run_ranks
from helpers.sharded import (
    OPTIM,
    POISONED,
    STEPS,
    TASKS,
    TRAINED,
    go_on,
    rows,
    task_of,
    train,
    train_each,
)
from lamina.core.errors import LaminaError
from lamina.train import checkpoint
from lamina.train.optim import build_optimizer, optimizer_tensors
from lamina.train.optim_options import OptimOptions
from lamina.train.options import TrainOptions
from lamina.train.rescue import Rescuable, rescue
from lamina.train.sharding import check_sharding, units, views_expected

torch.set_num_threads(1)
LOSSES = ("loss", "pixel_loss", "contrast_loss", "top1", "seen")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On two ranks each task with whole weights and with shares of them, and the same by one process."""
    folder = tmp_path_factory.mktemp("runs")
    printed = run_ranks(train_each, [folder], folder)
    assert not any("returned a view tensor" in text for text in printed)
    for name in TRAINED:
        train(folder / f"{name}-one", name, "none")
    return folder


def saved(folder: Path, step: int, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / f"step-{step}" / f"{name}.safetensors")


def check_same(a: Path, b: Path, first: int = 0) -> None:
    """Losses, norms, and what callbacks see: the same but for the order of sums."""
    ours, theirs = rows(a)[first:], rows(b)[first:]
    assert (
        [row["step"] for row in ours] == [row["step"] for row in theirs] == list(range(first + 1, STEPS + 1))
    )
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["nonfinite"] == other["nonfinite"] == int(mine["step"] > POISONED)
        for name, tolerance in {**dict.fromkeys(LOSSES, 1e-6), "grad_norm": 1e-5, "size": 1e-5}.items():
            found, expected = mine.get(name), other.get(name)
            if expected is None:
                assert found is None, name
            else:
                assert found == pytest.approx(expected, rel=tolerance), (name, mine["step"])


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_shares_train_as_whole_weights_do(runs: Path, name: str) -> None:
    check_same(runs / f"{name}-fsdp", runs / f"{name}-none")
    check_same(runs / f"{name}-fsdp", runs / f"{name}-one")


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_checkpoints_are_those_of_whole_weights(runs: Path, name: str) -> None:
    """The same names and shapes. AdamW's first moment after a step is a tenth of the gradient."""
    for part in ("model", "optimizer"):
        ours, theirs = (saved(runs / f"{name}-{kind}", 1, part) for kind in ("fsdp", "one"))
        assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in theirs.items()}
        for tensor, values in ours.items():
            if tensor.endswith("exp_avg"):
                largest = float(theirs[tensor].abs().max())
                assert float((values - theirs[tensor]).abs().max()) <= 2e-6 * max(largest, 1e-4), tensor


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "slow", "fast"), [("cmae", "target_encoder.", "mim.encoder."), ("deit", "average.", "")]
)
def test_what_follows_the_weights_follows_them(runs: Path, name: str, slow: str, fast: str) -> None:
    """slow <- slow / 2 + fast / 2 at each step, by the checkpoints alone; DeiT's follows faster at first."""
    for step in range(2, STEPS + 1):
        before, now = (saved(runs / f"{name}-fsdp", s, "model") for s in (step - 1, step))
        share = 0.5 if name == "cmae" else min(0.5, (1 + step) / (10 + step))
        for key in (key for key in now if key.startswith(slow)):
            expected = share * before[key] + (1 - share) * now[fast + key.removeprefix(slow)]
            torch.testing.assert_close(now[key], expected, rtol=1e-5, atol=1e-7, msg=key)
    first = saved(runs / f"{name}-fsdp", 1, "model")
    assert any(not torch.equal(first[key], now[key]) for key in now if key.startswith(slow))


@pytest.mark.slow
def test_bf16_rounds_within_the_forward_alone(runs: Path) -> None:
    """From the same weights, gradients that are averaged in fp32 differ by the order of a sum; averaged in bf16
    they would by 2^-9 of each. Later a weight's last bit may round to another bf16: 2^-8."""
    ours, theirs = (rows(runs / f"bf16-{shard}") for shard in ("fsdp", "none"))
    assert ours[0]["loss"] == pytest.approx(theirs[0]["loss"], rel=1e-6)
    assert ours[0]["loss"] != pytest.approx(rows(runs / "mae-fsdp")[0]["loss"], rel=1e-6)  # it is not fp32
    for mine, other in zip(ours, theirs, strict=True):
        if other["loss"] is not None:
            assert mine["loss"] == pytest.approx(other["loss"], rel=2**-8), mine["step"]
    moments, expected = (saved(runs / f"bf16-{shard}", 1, "optimizer") for shard in ("fsdp", "none"))
    for name in (name for name in expected if name.endswith("exp_avg")):
        largest = max(float(expected[name].abs().max()), 1e-4)
        assert float((moments[name] - expected[name]).abs().max()) <= 2e-6 * largest, name


@pytest.mark.slow
def test_micro_batches_add_up(runs: Path) -> None:
    check_same(runs / "micro-fsdp", runs / "mae-one")


@pytest.mark.slow
def test_a_rank_that_is_not_finite_stops_all_from_stepping(runs: Path) -> None:
    folder = runs / "mae-fsdp"
    for part in ("model", "optimizer"):
        before, after = (saved(folder, step, part) for step in (POISONED, POISONED + 1))
        assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_each_rank_holds_half(runs: Path) -> None:
    task = task_of("mae")
    moments = [
        t for n, t in optimizer_tensors(build_optimizer(task, OPTIM)).items() if not n.endswith(".step")
    ]
    held = [json.loads((runs / f"held-{rank}.json").read_text()) for rank in (0, 1)]
    for name, tensors in (("weights", list(task.parameters())), ("moments", moments)):
        whole = sum(t.nbytes for t in tensors)
        assert sum(share[name] for share in held) == whole
        rows_apart = sum(t.nbytes // len(t) for t in tensors if len(t) % 2)  # an odd row is on one of them
        assert abs(held[0][name] - held[1][name]) == rows_apart
    assert [share["finite"] for share in held] == [[True, False]] * 2  # the second rank's alone is not


@pytest.mark.slow
def test_rank_0_gathers_its_first_weights_buffers_and_modes(runs: Path) -> None:
    assert [json.loads((runs / f"gathered-{rank}.json").read_text()) for rank in (0, 1)] == [True, True]


@pytest.mark.slow
def test_another_number_of_ranks_goes_on(runs: Path, tmp_path: Path) -> None:
    """From two ranks with shares to three, whose shares are not as long as each other, and to one process; and
    from whole weights to shares."""
    one, three, whole = (tmp_path / kind for kind in ("one", "three", "whole"))
    for folder, begun in ((one, "mae-fsdp"), (three, "mae-fsdp"), (whole, "mae-none")):
        shutil.copytree(runs / begun, folder)
        for step in range(3, STEPS + 1):
            shutil.rmtree(folder / "checkpoints" / f"step-{step}")
    train(one, "mae", "fsdp", resume=True)
    run_ranks(go_on, [[(three, "fsdp"), (whole, "fsdp")]], tmp_path, world=3)
    for folder in (one, three, whole):
        check_same(folder, runs / "mae-one")
        assert checkpoint.verify(folder / "checkpoints" / f"step-{STEPS}") is None
    said = (one / "train.log").read_text()
    assert "train.shard fsdp has no effect with one process" in said


@pytest.mark.slow
def test_a_whole_run_with_shares_exports_and_reports(runs: Path) -> None:
    """Through the command line, with everything that is measured and drawn beside a training."""
    by_shares, whole = (rows(runs / shard) for shard in ("fsdp", "none"))
    for ours, theirs in zip(by_shares, whole, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
        assert ours["fusion_shares"] == pytest.approx(theirs["fusion_shares"], rel=1e-5)
    assert {f.name for f in (runs / "fsdp" / "encoder").iterdir()} == {
        f.name for f in (runs / "none" / "encoder").iterdir()
    }
    exported = load_file(runs / "fsdp" / "encoder" / "model.safetensors")
    trained = saved(runs / "fsdp", 3, "model")
    for name, tensor in exported.items():
        assert torch.equal(tensor, trained[f"encoder.vit.{name}"]), name
    assert list((runs / "fsdp").glob("pictures/*.png"))


@pytest.mark.parametrize(
    ("options", "optim", "word"),
    [
        ({"precision": "fp16"}, {}, "does not work with fp16"),
        ({"compile": True}, {}, "does not work with train.compile"),
        ({}, {"kind": "lars"}, "does not work with the optimiser lars"),
    ],
)
def test_what_shares_do_not_work_with_is_refused(
    options: dict[str, Any], optim: dict[str, Any], word: str
) -> None:
    with pytest.raises(LaminaError, match=word):
        check_sharding(nn.Linear(2, 2), OptimOptions(**optim), TrainOptions(shard="fsdp", **options))
    check_sharding(nn.Linear(2, 2), OptimOptions(**optim), TrainOptions(shard="none", **options))


def test_what_torch_warns_of_is_as_before_after_a_training() -> None:
    """Of views it says nothing while weights are in shares, and something without shares."""
    line = "FSDP2-wrapped module (Block) returned a view tensor. An in-place op"
    before = list(warnings.filters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with views_expected(TrainOptions(shard="fsdp")):
            warnings.warn(line, UserWarning, stacklevel=1)
        with views_expected(TrainOptions()), pytest.raises(UserWarning, match="a view tensor"):
            warnings.warn(line, UserWarning, stacklevel=1)
    assert warnings.filters == before


def test_a_single_number_cannot_be_cut() -> None:
    task = nn.Linear(2, 2)
    task.temperature = nn.Parameter(torch.ones(()))
    with pytest.raises(LaminaError, match="'temperature'"):
        check_sharding(task, OPTIM, TrainOptions(shard="fsdp"))


def test_units_are_blocks_and_what_reads_weights_part_by_part() -> None:
    """Every block once, none of a frozen teacher, and no unit within another."""
    counts = {name: len(units(task_of(name))) for name in TASKS}
    assert counts == {
        "mae": 3 + 1,
        "decay": 1,
        "crossmae": 3 + 2,
        "milan": 3 + 2,
        "cmae": 3 + 3 + 1 + 2,
        "deit": 3 + 3,
    }
    for name in TASKS:
        inside = [part for unit in units(task_of(name)) for part in unit.modules()]
        assert len(inside) == len(set(inside))


def test_an_error_says_that_shares_are_not_saved() -> None:
    """Rank 0 cannot gather the others' shares where one of them is gone."""
    error = RuntimeError("lost")
    run = SimpleNamespace(
        state=SimpleNamespace(step=5, total_steps=9),
        run_log=object(),
        whole=True,
        saver=SimpleNamespace(finish=lambda: None),
        failed_to_save=False,
        saved_step=3,
        layout=SimpleNamespace(cut=True),
    )
    rescue(cast("Rescuable", run), error)
    assert error.__notes__ == [
        "step 5 is not saved, since its weights are in shares (train.shard fsdp); --resume goes on from the "
        "checkpoint before"
    ]
