"""Training whose loss or gradient is not finite: how it ends, what is kept of it, and the ways out."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lamina
from helpers.options import TINY_RUN, words
from helpers.training import OPTIM, Counting, ToyLoader, ToyTask, fingerprint, train
from lamina.cli.entry import main
from lamina.core.config import merge
from lamina.core.errors import LaminaError
from lamina.interop.inspect import inspect
from lamina.interop.load import load_encoder
from lamina.runs.run import Run, load_task
from lamina.tokenizer.options import TokenizerOptions
from lamina.tokenizer_training import train_tokenizer
from lamina.train import checkpoint, divergence
from lamina.train.checkpoint import read, read_state, steps
from lamina.train.divergence import most_nonfinite
from lamina.train.loop import fit
from lamina.train.options import TrainOptions
from lamina.train.state import Outcome

torch.set_num_threads(1)
DATA = "sample:photos?crop=16&most=2"
LAST = 13  # two epochs of 26 samples in batches of 4
EXPLODING = 1e40  # one step at this rate leaves infinities in the weights


def go(
    folder: Path, resume: bool = False, task: nn.Module | None = None, lr: float = 1.0, **named
) -> Outcome:
    """A toy run with its own learning rate, and what its callback was told in `outcome.row["calls"]`."""
    told = Counting()
    loader = ToyLoader(poisoned=tuple(named.pop("poisoned", ())))
    defaults = {"epochs": 2.0, "batch_size": 4, "log_every_steps": 3, "device": "cpu"}
    optim = replace(OPTIM, base_lr=lr, clip_grad=named.pop("clip_grad", OPTIM.clip_grad))
    outcome = fit(task or ToyTask(), loader, optim, TrainOptions(**defaults | named), folder, [told], resume)
    outcome.row["calls"] = told.calls
    return outcome


def weights(folder: Path, step: int) -> dict[str, Tensor]:
    return {k: v for k, v in read(folder / f"checkpoints/step-{step}").model.items() if k != "steps"}


@pytest.mark.parametrize(
    "named", [{}, {"max_steps": 5}, {"max_steps": 1}, {"precision": "fp16", "max_steps": 3}]
)
def test_a_run_that_never_takes_a_step_is_not_finished(named: dict, tmp_path: Path) -> None:
    """Fewer steps than the limit of 20, and with fp16 none of them is counted as non-finite."""
    task = ToyTask(loss_scale=1e12 if named.get("precision") == "fp16" else 1.0)
    poisoned = () if named.get("precision") == "fp16" else range(99)
    outcome = go(tmp_path, task=task, poisoned=poisoned, **named)
    assert (outcome.reason, outcome.exit_code) == ("nonfinite", 70)
    assert not [call for call in outcome.row["calls"] if call.startswith("checkpoint")]  # nothing is exported
    assert all(
        torch.equal(value, ToyTask().state_dict()[k]) for k, value in weights(tmp_path, outcome.step).items()
    )


class LastStepExplodes(ToyTask):
    """Finite loss and gradient at each step; the last update itself writes an infinity."""

    def after_step(self, step: int) -> None:
        super().after_step(step)
        if step == LAST:
            assert isinstance(self.net[1], nn.Linear)
            self.net[1].bias.data[0] = math.inf


def test_weights_that_are_not_finite_at_the_end_are_no_result(tmp_path: Path) -> None:
    outcome = go(tmp_path, task=LastStepExplodes(), checkpoint_every_steps=4)
    assert (outcome.reason, outcome.step) == ("nonfinite", LAST)
    assert [c for c in outcome.row["calls"] if c.startswith("checkpoint")] == [
        f"checkpoint {n}" for n in (4, 8, 12)
    ]


@pytest.mark.parametrize(
    ("limit", "total", "most"), [(20, 1000, 20), (20, 40, 20), (20, 39, 19), (20, 1, 0), (0, 9, 0)]
)
def test_at_most_half_of_a_short_run_may_be_skipped(limit: int, total: int, most: int) -> None:
    assert most_nonfinite(TrainOptions(nonfinite_limit=limit), total) == most


def diverged(folder: Path) -> Path:
    """A run that is healthy up to step 4 and then sees nothing but NaN; a checkpoint at each step, two kept."""
    ended = go(folder, checkpoint_every_steps=1, poisoned=range(16, 99))
    assert (ended.reason, ended.step) == ("nonfinite", 11)  # 7 of 13 were skipped
    return folder


def test_diverged_checkpoints_do_not_push_out_good_ones(tmp_path: Path) -> None:
    assert steps(diverged(tmp_path) / "checkpoints") == [3, 4, 10, 11]


def test_a_plain_resume_of_a_diverged_run_changes_nothing(tmp_path: Path) -> None:
    diverged(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.name != "train.log"}
    with pytest.raises(
        LaminaError, match=r"stopped at step 11.*base_lr, clip_grad or precision.*step 3"
    ) as caught:
        go(tmp_path, resume=True, checkpoint_every_steps=1)
    assert caught.value.exit_code == 70
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.name != "train.log"}
    assert after == before


@pytest.mark.parametrize("other", [{"lr": 0.5}, {"clip_grad": 0.1}, {"precision": "bf16"}])
def test_with_another_rate_a_diverged_run_goes_on_from_before(other: dict, tmp_path: Path) -> None:
    """It ends as a healthy run that was stopped at step 3 and goes on with the same change: no step was taken
    with the weights of step 4."""
    diverged(tmp_path / "run")
    healthy = go(tmp_path / "healthy", checkpoint_every_steps=1, max_steps=LAST, keep_checkpoints=99)
    assert healthy.reason == "finished"
    for step in range(4, LAST + 1):
        shutil.rmtree(tmp_path / "healthy" / "checkpoints" / f"step-{step}")
    for name in ("run", "healthy"):
        outcome = go(tmp_path / name, resume=True, checkpoint_every_steps=1, keep_checkpoints=99, **other)
        assert (outcome.reason, outcome.row["nonfinite"]) == ("finished", 0)
    assert fingerprint(tmp_path / "run", LAST) == fingerprint(tmp_path / "healthy", LAST)
    assert steps(tmp_path / "run" / "checkpoints") == list(range(3, LAST + 1))
    assert "goes on from there with" in (tmp_path / "run" / "train.log").read_text()


def test_without_any_good_checkpoint_it_begins_again(tmp_path: Path) -> None:
    go(tmp_path / "run", poisoned=range(99))
    outcome = go(tmp_path / "run", resume=True, lr=0.5)
    go(tmp_path / "fresh", lr=0.5)
    assert outcome.reason == "finished"
    assert fingerprint(tmp_path / "run", LAST) == fingerprint(tmp_path / "fresh", LAST)


def test_a_larger_limit_goes_on_where_it_stopped(tmp_path: Path) -> None:
    ended = go(tmp_path, poisoned=range(16, 24), nonfinite_limit=1)
    assert (ended.reason, ended.step) == ("nonfinite", 6)
    assert go(tmp_path, resume=True, nonfinite_limit=2).reason == "finished"
    assert "going on at step 6" in (tmp_path / "train.log").read_text()


def test_checkpoints_of_earlier_versions_are_judged_too(tmp_path: Path) -> None:
    """They say neither how many steps in a row were skipped, nor whether the weights are finite."""
    from lamina.train.divergence import why_useless

    train(tmp_path, checkpoint_every_steps=1, keep_checkpoints=99, max_steps=2, poisoned=range(4))
    for step in (1, 2):
        file = tmp_path / f"checkpoints/step-{step}/state.json"
        content = json.loads(file.read_text())
        del content["weights_finite"], content["train"]["skipped_in_a_row"]
        file.write_text(json.dumps(content))
    assert "nothing was trained" in (why_useless(tmp_path / "checkpoints/step-1") or "")
    assert why_useless(tmp_path / "checkpoints/step-2") is None


class UpdateExplodes(ToyTask):
    """The update of step 5 multiplies the weights of the last layer; loss and gradient of that step are
    finite."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def after_step(self, step: int) -> None:
        super().after_step(step)
        if step == 5:
            assert isinstance(self.net[4], nn.Linear)
            self.net[4].weight.data *= self.factor


@pytest.mark.parametrize("keep", [1, 2])
def test_weights_that_exploded_but_are_finite_do_not_replace_the_last_good_ones(
    keep: int, tmp_path: Path
) -> None:
    """Each later step is taken, with a loss that is finite and a million times as high."""
    always = {"checkpoint_every_steps": 1, "max_steps": 9}
    assert go(tmp_path / "healthy", keep_checkpoints=99, **always).reason == "finished"
    outcome = go(tmp_path / "run", task=UpdateExplodes(1e4), keep_checkpoints=keep, **always)
    assert (outcome.reason, outcome.row["nonfinite"]) == ("finished", 0)
    assert outcome.row["loss"] > 1e6
    assert steps(tmp_path / "run" / "checkpoints") == [4, *range(10 - keep, 10)]
    for name, weight in weights(tmp_path / "run", 4).items():
        assert torch.equal(weight, weights(tmp_path / "healthy", 4)[name])
    log = (tmp_path / "run" / "train.log").read_text()
    assert log.count("step 6: the loss is more than 10 times that of the first step") == 1
    assert "ends with a loss more than 10 times that of its first step: the newest weights known" in log
    assert "are those of step 4 (" in log
    assert "more than 10 times" not in (tmp_path / "healthy" / "train.log").read_text()


def test_one_checkpoint_to_keep_is_two_until_the_newest_is_proven(tmp_path: Path) -> None:
    go(tmp_path, checkpoint_every_steps=2, keep_checkpoints=1, max_steps=6)
    assert steps(tmp_path / "checkpoints") == [4, 6]


def test_after_an_explosion_to_finite_weights_the_way_out_works(tmp_path: Path) -> None:
    """From the weights of step 5 each loss is infinite, whatever the rate; from those of step 4 training goes
    on."""
    settings = {"checkpoint_every_steps": 1, "keep_checkpoints": 1}
    assert go(tmp_path, task=UpdateExplodes(1e30), **settings).exit_code == 70
    assert steps(tmp_path / "checkpoints")[:2] == [4, 5]
    outcome = go(tmp_path, resume=True, lr=0.5, **settings)
    assert (outcome.reason, outcome.row["nonfinite"]) == ("finished", 0)
    assert "the run diverged after the checkpoint of step 4" in (tmp_path / "train.log").read_text()


def test_the_first_loss_survives_a_resume(tmp_path: Path) -> None:
    """Else a run that goes on after the explosion would take its high loss for the usual one."""
    always = {"checkpoint_every_steps": 1, "keep_checkpoints": 1}
    task = UpdateExplodes(1e4)
    with pytest.raises(OSError, match="not connected"):
        fit_until_error(tmp_path, task, 7, always)
    go(tmp_path, resume=True, task=UpdateExplodes(1e4), max_steps=9, **always)
    assert steps(tmp_path / "checkpoints") == [4, 9]


def fit_until_error(folder: Path, task: nn.Module, step: int, settings: dict) -> None:
    options = TrainOptions(max_steps=9, batch_size=4, log_every_steps=3, device="cpu", **settings)
    fit(task, ToyLoader(error_before=step), OPTIM, options, folder)


def test_where_no_scale_fits_fp16_another_precision_is_the_way_out(tmp_path: Path) -> None:
    task, options = ToyTask(loss_scale=1e12), TrainOptions(precision="fp16", epochs=6.0)
    with pytest.raises(LaminaError, match="--resume and --precision bf16 or fp32"):
        go(tmp_path, task=task, precision="fp16", epochs=6.0)
    assert divergence.remedies(tmp_path, options, ["train.precision"]) == ["train.precision"]
    assert go(tmp_path, resume=True, task=ToyTask(), precision="bf16", epochs=6.0).reason == "finished"


@pytest.fixture(scope="module")
def exploded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by the command line's own words whose every step after the first is not finite."""
    run = tmp_path_factory.mktemp("exploded") / "run"
    code = main(["pretrain", DATA, "--out", str(run), *TINY, "--base-lr", str(EXPLODING)])
    assert code == 70
    return run


TINY = words(
    TINY_RUN
    | {"batch-size": 16, "max-steps": 8}
    | {"optim.warmup-epochs": 0, "monitor.images": 0, "train.log-every-steps": 4}
)


def test_nothing_is_made_of_a_run_that_exploded(exploded: Path, tmp_path: Path, capsys) -> None:
    assert not (exploded / "encoder").exists()
    for use in (
        lambda: load_encoder(exploded),
        lambda: lamina.export_timm(exploded, tmp_path / "x.safetensors"),
        lambda: lamina.pretrain(
            DATA, tmp_path / "next", "mae-small", init=exploded, image_size=16, patch_size=4
        ),
    ):
        with pytest.raises(LaminaError, match="cannot be used"):
            use()
    assert main(["evaluate", "finetune", str(exploded), DATA, "--out", str(tmp_path / "tuned")]) == 2
    assert not (tmp_path / "tuned").exists()
    told = dict(inspect(exploded).rows())
    assert "not usable" in told
    assert "use" not in told


def test_the_way_out_that_the_command_line_advises_works(exploded: Path, tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    shutil.copytree(exploded, run)
    assert main(["pretrain", DATA, "--out", str(run), "--resume"]) == 70
    assert "give --resume another base_lr" in capsys.readouterr().err
    assert main(["pretrain", DATA, "--out", str(run), "--resume", "--seed", "1", "--base-lr", "1e-3"]) == 2
    assert main(["pretrain", DATA, "--out", str(run), "--resume", "--base-lr", "1e-3"]) == 0
    assert Run(run).recipe().optim.base_lr == 1e-3
    assert (
        main(["pretrain", DATA, "--out", str(run), "--resume", "--base-lr", "1e-4"]) == 2
    )  # it is healthy now
    assert load_encoder(run).origin is not None


@pytest.fixture(scope="module")
def mostly_skipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A healthy run of eight steps whose last checkpoint says that six of them were skipped: its weights are
    finite."""
    run = tmp_path_factory.mktemp("skipped") / "run"
    code = main(["pretrain", DATA, "--out", str(run), *TINY, "--train.checkpoint-every-steps", "4"])
    assert code == 0
    return run


@pytest.mark.parametrize("says", [True, False])
def test_the_finite_weights_of_a_diverged_run_are_refused(
    mostly_skipped: Path, says: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the checkpoint says its limit, or is of an earlier version."""
    run, content = tmp_path / "run", read_state(mostly_skipped / "checkpoints" / "step-8")
    shutil.copytree(mostly_skipped, run)
    assert content["most_nonfinite"] == 4
    content["train"] |= {"nonfinite": 5, "skipped_in_a_row": 1}
    if not says:
        del content["most_nonfinite"]
    real = checkpoint.read_state
    changed = lambda path: content if path.name == "step-8" else real(path)  # noqa: E731
    monkeypatch.setattr(divergence, "read_state", changed)
    for use in (
        lambda: load_encoder(run),
        lambda: load_encoder(f"{run}@8"),
        lambda: lamina.export_timm(run, tmp_path / "x.safetensors"),
        lambda: lamina.pretrain(DATA, tmp_path / "next", "mae-small", init=run, image_size=16, patch_size=4),
        lambda: load_task(run),
    ):
        with pytest.raises(LaminaError, match=r"diverged: 5 of 8 steps .* take the one of step 4"):
            use()
    assert main(["embed", str(run), DATA, "--out", str(tmp_path / "e")]) == 2
    assert "diverged: 5 of 8" in dict(inspect(run).rows())["not usable"]
    assert load_encoder(f"{run}@4").origin is not None  # asked for
    content["train"] |= {"nonfinite": 4}
    assert load_encoder(run).origin is not None


def test_the_last_line_names_a_way_out_that_there_is(tmp_path: Path) -> None:
    sentence = Outcome("nonfinite", 6, 13, tmp_path / "step-6", {}).sentence
    way = "--resume with a lower base_lr, another clip_grad or another precision continues from the last good"
    assert way in sentence


def test_a_tokenizer_that_diverged_goes_on_with_another_rate(tmp_path: Path) -> None:
    options = TokenizerOptions(
        image_size=16, width=8, depth=1, max_steps=6, batch_size=8, workers=0, device="cpu", base_lr=1e30,
        clip_grad=None,
    )  # fmt: skip
    assert train_tokenizer(DATA, tmp_path / "t", options).exit_code == 70
    assert not (tmp_path / "t" / "tokenizer.safetensors").exists()
    with pytest.raises(LaminaError, match="give --resume another"):
        train_tokenizer(DATA, tmp_path / "t", options, resume=True)
    mended = merge(options, {"base_lr": 1e-3})
    assert train_tokenizer(DATA, tmp_path / "t", mended, resume=True).exit_code == 0
    assert train_tokenizer(DATA, tmp_path / "t", mended, resume=True).exit_code == 0


def test_a_recipe_that_was_changed_says_what_it_was(exploded: Path, tmp_path: Path) -> None:
    shutil.copytree(exploded, tmp_path / "run")
    run = Run(tmp_path / "run")
    run.change(merge(run.recipe(), {"optim": {"base_lr": 1e-3}}))
    assert run.recipe().optim.base_lr == 1e-3
    assert "optim.base_lr: 1.0e+40" in run.recipe_file.read_text()
