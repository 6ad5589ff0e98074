"""Studies: fair arms, intervals by hand, and a study that is killed and resumed tells the same."""

import json
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import t

from lamina.cli import entry as cli
from lamina.core.config import differences
from lamina.core.errors import LaminaError
from lamina.core.intervals import SHARE, SHARES_APART, difference, estimate, first_reach
from lamina.core.records import read_json, write_json
from lamina.data.open import open_source
from lamina.data.sources import ArraySource
from lamina.fusion.options import resolve_layers
from lamina.studies import run as running
from lamina.studies.feature_bias import feature_bias
from lamina.studies.fusion import PLAIN, fusion, tap_sets
from lamina.studies.options import StudyOptions, base_recipe
from lamina.studies.pair import pair
from lamina.studies.run import run_study
from lamina.train.callbacks import Callback

TINY = StudyOptions(
    seeds=1, steps=8, batch_size=8, width=32, depth=2, num_train=16, num_test=8, workers=0, device="cpu"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two classes of 16 x 16 px in grey: bright and dark noise."""
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for part, n in (("train", 12), ("val", 4)):
        for name, level in (("bright", 160), ("dark", 40)):
            place = root / part / name
            place.mkdir(parents=True)
            for i in range(n):
                noise = generator.integers(0, 60, (16, 16))
                Image.fromarray((level + noise).astype(np.uint8)).save(place / f"{i}.png")
    return str(root)


@pytest.fixture(scope="module")
def whole(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study feature-bias of one seed, finished."""
    out = tmp_path_factory.mktemp("studies") / "whole"
    assert run_study(feature_bias, folder, out, TINY).exit_code == 0
    return out


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    """A copy of that study, which a test may change."""
    return shutil.copytree(whole, tmp_path / "study")


def grey(side: int = 28) -> ArraySource:
    return ArraySource(torch.zeros(100, 1, side, side, dtype=torch.uint8), [str(i) for i in range(100)])


def test_an_estimate_is_students_t():
    found = estimate([1.0, 2.0, 3.0])
    assert found.mean == 2
    half = 4.302652729911275 / 3**0.5  # t of 2 degrees of freedom, sd 1
    assert found.interval == pytest.approx((2 - half, 2 + half))
    assert found.tell(10, 1) == "20.0 ± 24.8"
    assert not found.clear
    assert estimate([5.0]).interval is None
    assert not estimate([5.0]).clear
    assert difference([3.0, 5.0, 7.0], [1.0, 3.0, 5.0]).interval == (2, 2)
    assert difference([3.0, 5.0, 7.0], [1.0, 3.0, 5.0]).clear
    with pytest.raises(LaminaError, match="one seed"):
        estimate([])


@pytest.mark.parametrize("values", [(0.688, 0.969, 0.75), (0.99, 0.99, 0.9999), (0.0, 0.001), (0.5, 0.51)])
def test_an_interval_of_shares_is_students_t_on_the_logit_scale(values):
    """R: svyciprop(method = "logit"), where the standard error of the logit is that of the mean over p(1-p)."""
    n, mean = len(values), np.mean(values)
    error = np.std(values, ddof=1) / n**0.5 / (mean * (1 - mean))
    ends = np.log(mean / (1 - mean)) + t.ppf(0.975, n - 1) * error * np.array([-1, 1])
    low, high = estimate(values, SHARE).interval
    assert (low, high) == pytest.approx(1 / (1 + np.exp(-ends)))
    assert 0 <= low < mean < high <= 1


@pytest.mark.parametrize("ours", [(0.9, 0.1, 0.5), (1.0, 0.0, 0.99), (0.9, 0.91, 0.9)])
def test_an_interval_of_a_difference_of_shares_stays_between_both_bounds(ours):
    gain = difference(ours, [0.0, 0.05, 0.1], SHARES_APART)
    assert -1 <= gain.interval[0] < gain.mean < gain.interval[1] <= 1
    plain = difference(ours, [0.0, 0.05, 0.1])
    assert gain.clear == plain.clear


def test_values_that_are_all_at_a_bound_have_no_width():
    assert estimate([1.0, 1.0, 1.0], SHARE).interval == (1, 1)
    assert estimate([0.0, 0.0], SHARE).tell(100) == "0.0 ± 0.0"


def test_sides_that_differ_are_told_as_ends():
    assert estimate([0.99, 0.95, 0.97], SHARE).tell(100) == "97.0 (85.4 to 99.4)"
    assert estimate([0.5, 0.51, 0.49], SHARE).tell(100) == "50.0 ± 2.5"


def test_no_value_beyond_its_bounds_has_an_interval():
    with pytest.raises(LaminaError, match="between 0 and 1"):
        estimate([1.5, 1.7], SHARE)


def test_a_goal_is_reached_on_the_line_between_two_looks():
    epochs, scores = [1.0, 2.0, 4.0], [0.2, 0.4, 0.8]
    assert first_reach(epochs, scores, 0.1) == 1
    assert first_reach(epochs, scores, 0.3) == pytest.approx(1.5)
    assert first_reach(epochs, scores, 0.6) == pytest.approx(3)
    assert first_reach(epochs, scores, 0.9) is None
    assert first_reach([1.0, 2.0, 3.0], [0.5, 0.2, 0.6], 0.4) == 1  # the first time counts


@pytest.mark.parametrize("depth", [9, 12, 24])
def test_tap_sets_can_be_built(depth):
    sets = tap_sets(depth)
    for name, layers in sets.items():
        assert resolve_layers(layers, depth) == layers
        if name.startswith("spread"):
            assert len(layers) == int(name.split()[1]) + 1
    assert max(sets["shallow"][:-1]) < min(sets["deep"])
    with pytest.raises(LaminaError, match="--depth 9"):
        tap_sets(8)


def test_arms_of_a_pair_differ_in_whether_layers_are_fused():
    plan = pair.plan(StudyOptions(), grey(), 80, Path("out"))
    arms = {arm.name: arm.recipe for arm in plan.arms}
    for plain in ("MAE", "PixMIM"):
        assert set(differences(arms[plain], arms[f"{plain} + MFF"])) == {"fusion.kind"}
    between = set(differences(arms["MAE"], arms["PixMIM"]))
    assert between == {"name", "target.low_pass", "data.crop", "fusion.kind"} - {"fusion.kind"}


def test_arms_of_where_to_fuse_differ_in_the_fusion():
    plan = fusion.plan(StudyOptions(), grey(), 80, Path("out"))
    plain, *others = plan.arms
    assert plain.name == PLAIN
    for arm in others:
        changed = set(differences(plain.recipe, arm.recipe))
        assert changed
        assert all(field.startswith("fusion.") for field in changed)
    assert len({json.dumps(str(arm.recipe.fusion)) for arm in plan.arms}) == len(plan.arms)


def test_arms_of_the_pilot_differ_in_what_is_learned():
    plan = feature_bias.plan(StudyOptions(), grey(), 80, Path("out"))
    arms = {arm.name: arm.recipe for arm in plan.arms}
    features = set(differences(arms["pixels, none"], arms["teacher, none"]))
    assert features == {"name", "target.kind", "target.teacher", "loss"}
    labels = set(differences(arms["pixels, none"], arms["labels, none"]))
    assert labels - {"name", "method", "loss"} == {"supervised.pool", "supervised.mixup", "supervised.cutmix"}
    for target in ("pixels", "teacher", "labels"):
        both = arms[f"{target}, none"], arms[f"{target}, linear"]
        assert set(differences(*both)) == {"fusion.projection"}
    assert plan.teacher is not None
    assert plan.teacher.recipe.method == "supervised"
    assert plan.teacher_seed not in range(100)


def test_the_recipe_follows_the_images():
    small = base_recipe(StudyOptions(), grey(28), 80)
    assert (small.encoder.image_size, small.encoder.patch_size) == ((28, 28), 4)
    assert small.encoder.in_chans == 1
    large = base_recipe(StudyOptions(), grey(100), 80)
    assert (large.encoder.image_size, large.encoder.patch_size) == ((64, 64), 8)
    with pytest.raises(LaminaError, match="--patch-size"):
        base_recipe(StudyOptions(), grey(30), 80)


class Killed(Exception):
    """What ends a study without warning."""


def test_a_study_killed_in_a_run_and_between_runs_tells_the_same(folder, whole, tmp_path, monkeypatch):
    trained = Counter()
    pretrain = running.run_pretrain

    class Dies(Callback):
        required = True

        def on_log(self, step, row, batch, task):
            if step >= 4:
                raise Killed

    def dying(recipe, data, out, resume):
        trained[Path(out).name] += 1
        callbacks = (lambda run, source: [Dies()]) if sum(trained.values()) == 2 else None
        return pretrain(recipe, data, out, resume=resume, callbacks=callbacks)

    monkeypatch.setattr(running, "run_pretrain", dying)
    with pytest.raises(Killed):
        run_study(feature_bias, folder, tmp_path / "broken", TINY)
    written = running.write_json

    def full_disk(file, text):
        if file.parent.name == "measured" and len(list(file.parent.glob("*"))) == 3:
            raise Killed
        written(file, text)

    monkeypatch.setattr(running, "write_json", full_disk)
    with pytest.raises(Killed):
        run_study(feature_bias, folder, tmp_path / "broken", TINY)
    monkeypatch.setattr(running, "write_json", written)
    broken = run_study(feature_bias, folder, tmp_path / "broken", TINY)
    assert broken.page.read_text() == (whole / "README.md").read_text()
    results = [json.loads((place / "result.json").read_text()) for place in (whole, broken.page.parent)]
    assert results[0]["measured"] == results[1]["measured"]
    assert results[0]["tables"] == results[1]["tables"]
    assert sorted(trained.values()) == [1] * 5 + [2, 2]  # what was measured is not trained again
    for suffix in ("png", "svg"):
        assert (whole / f"figure.{suffix}").stat().st_size > 1000


def test_more_seeds_can_follow_but_nothing_else_may_change(folder, copied):
    out = copied
    assert "±" not in (out / "README.md").read_text()
    lines = []
    more = run_study(feature_bias, folder, out, replace(TINY, seeds=2), lines.append)
    assert "±" in more.page.read_text()
    assert all("seed 1" in line for line in lines if line.startswith("run "))
    with pytest.raises(LaminaError, match=r"other settings .*steps"):
        run_study(feature_bias, folder, out, replace(TINY, steps=9))
    with pytest.raises(LaminaError, match=r"other settings .*study"):
        run_study(pair, folder, out, TINY)
    kept = read_json(out / "study.json")
    del kept["images"]  # as lamina wrote it before
    for recipe in kept["arms"].values():
        del recipe["data"]["jpeg_decoding"]
    write_json(out / "study.json", kept)
    lines.clear()
    assert run_study(feature_bias, folder, out, TINY, lines.append).exit_code == 0
    assert ["does not say which images" in line for line in lines] == [True]
    before = {file: file.read_bytes() for file in Path(folder, "train").rglob("*.png")}
    for file in before:  # other pixels in the same files
        Image.open(file).transpose(Image.Transpose.ROTATE_180).save(file)
    try:
        with pytest.raises(LaminaError, match=r"other settings \(images\)"):
            run_study(feature_bias, folder, out, TINY)
    finally:
        for file, content in before.items():
            file.write_bytes(content)


def test_an_interruption_between_trainings_says_what_is_kept(folder, tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    plain, out = running._brief, tmp_path / "study"
    monkeypatch.setattr(running, "_brief", lambda found: plain(found) if "sha256" in found else interrupted())
    with pytest.raises(KeyboardInterrupt) as stop:
        run_study(feature_bias, folder, out, TINY)
    told = f"1 of 6 runs are measured and kept in {out}: the same command goes on there"
    assert stop.value.__notes__[-1] == told


def test_the_teacher_is_trained_again_where_its_run_is_gone(folder, copied):
    """As in a clone of the committed pages: runs are not kept there, measurements are."""
    out = copied
    shutil.rmtree(out / "runs")
    lines = []
    page = run_study(feature_bias, folder, out, TINY, lines.append)
    assert (page.exit_code, lines) == (0, [])  # all is measured: nothing is trained
    assert not (out / "runs").exists()
    run_study(feature_bias, folder, out, replace(TINY, seeds=2), lines.append)
    assert lines[0] == "the teacher"
    assert sum(line.startswith("run ") for line in lines) == 6
    shutil.rmtree(out / "runs")
    measured = out / "measured" / "teacher-seed1000.json"
    write_json(measured, {**read_json(measured), "sha256": "0" * 64})
    with pytest.raises(LaminaError, match="its weights differ"):  # as on another machine
        run_study(feature_bias, folder, out, replace(TINY, seeds=3))


def test_when_a_fused_run_is_there_is_told_beside_the_plain_runs_own_share():
    """Two seeds by hand: the fused run is there half way and at three quarters, in half the time a step; the
    plain run passes its own final score half way, in the second seed at its end."""

    def run(knn, seconds):
        curves = {"epochs": [1.0, 2.0, 3.0, 4.0], "knn": knn, "linear": [0.1, 0.2, 0.3, 0.4]}
        spectrum = {"low_band": 1.0, "high_band": 1.0, "share_high": 0.5}
        return {
            "knn": knn[-1],
            "linear": 0.4,
            "curves": curves,
            "seconds": seconds,
            "spectrum": spectrum,
            "hessian_maxima": [1.0],
        }

    measured = {
        "MAE": [run([0.2, 0.5, 0.6, 0.5], 600.0), run([0.1, 0.2, 0.3, 0.5], 600.0)],
        "MAE + MFF": [run([0.2, 0.5, 0.6, 0.7], 300.0), run([0.1, 0.3, 0.5, 0.6], 300.0)],
    }
    measured |= {"PixMIM": measured["MAE"], "PixMIM + MFF": [run([0.1, 0.2, 0.3, 0.4], 300.0)] * 2}
    about = {"epochs": 4.0, "options": {"test": 2000}}
    told = pair.plan(StudyOptions(), grey(), 80, Path("out")).report(measured, about)
    rows = {row[:2]: row[2:] for row in told.tables[1].rows}
    epochs, share, own, minutes, clock, gain = rows["MAE + MFF - MAE", "kNN"]
    assert epochs == f"2.50 ± {12.706 * 0.7071 / 2**0.5:.2f}"
    assert share.startswith("62 (")  # 62.5
    assert own.startswith("75 (")
    assert own.endswith("to 100) %")
    assert minutes.startswith("3.1 ±")
    assert clock.startswith("31 ±")
    assert gain.startswith("+15.0 (")
    assert rows["PixMIM + MFF - PixMIM", "kNN"][0] == "reached by 0 of 2 seeds"


def test_a_study_from_the_command_line(folder, tmp_path, monkeypatch, capsys):
    arguments = ["study", "feature-bias", "--data", folder, "--out", str(tmp_path / "s"), "--seeds", "1"]
    arguments += ["--steps", "8", "--batch-size", "8", "--width", "32", "--depth", "2", "--num-train", "16"]
    arguments += ["--num-test", "8", "--workers", "0", "--device", "cpu"]
    pretrain, calls = running.run_pretrain, []

    def interrupted(*args, **kwargs):
        calls.append(args)
        outcome = pretrain(*args, **kwargs)
        return SimpleNamespace(exit_code=130, reason="interrupted") if len(calls) == 2 else outcome

    monkeypatch.setattr(running, "run_pretrain", interrupted)
    monkeypatch.setattr(sys, "argv", ["lamina", *arguments])
    assert cli.main(arguments) == 130
    assert not (tmp_path / "s" / "README.md").exists()
    assert cli.main(arguments) == 0
    assert "run 6 of 6: labels, linear, seed 0" in capsys.readouterr().out
    assert "lamina study feature-bias" in (tmp_path / "s" / "README.md").read_text()


def test_a_pair_is_probed_at_every_look(folder, tmp_path):
    options = replace(TINY, depth=6)
    page = run_study(pair, folder, tmp_path / "pair", options, command="lamina study pair").page
    result = json.loads((page.parent / "result.json").read_text())
    (seed,) = result["measured"]["MAE + MFF"]
    assert len(seed["curves"]["epochs"]) == 4  # every 2 of 8 steps
    assert seed["curves"]["epochs"][-1] == pytest.approx(8 * 8 / len(open_source(folder)))
    assert seed["knn"] == seed["curves"]["knn"][-1]
    assert len(seed["hessian_maxima"]) >= 1
    assert "lamina study pair" in page.read_text()
    assert "lamina study pair" in (page.parent / "figure.svg").read_text()


def test_where_to_fuse_is_told_against_the_plain_arm():
    plan = fusion.plan(StudyOptions(), grey(), 80, Path("out"))
    measured = {
        arm.name: [{"knn": 0.5 + 0.01 * i, "linear": 0.6 + 0.01 * i} for i in range(3)] for arm in plan.arms
    }
    measured["deep"] = [{"knn": s["knn"] + 0.1, "linear": s["linear"] - 0.1} for s in measured[PLAIN]]
    arms = {arm.name: {"fusion": {"kind": arm.recipe.fusion.kind, "layers": [0, 11]}} for arm in plan.arms}
    told = plan.report(measured, {"arms": arms, "options": {"depth": 12, "test": 2000}})
    knn, linear, _ = told.findings
    assert "above plain MAE: deep; clearly below: none" in knn
    assert "above plain MAE: none; clearly below: deep" in linear
    rows = {row[0]: row for row in told.tables[0].rows}
    assert rows["deep"][2:] == ("61.0 ± 2.5", "+10.0 ± 0.0", "51.0 ± 2.5", "-10.0 ± 0.0")
    assert isinstance(told.figure, Figure)


def test_wrong_arguments_are_one_line(folder, tmp_path, capsys):
    for arguments, words in (
        (["study"], "needs one of: feature-bias, pair, fusion"),
        (["study", "pair", "--out", str(tmp_path / "x"), "--steps", "3"], "8 or more"),
        (["study", "pair", "--out", folder, "--data", folder], "is not a study"),
        (["study", "pair", "--out", str(tmp_path / "x"), "--data", str(tmp_path / "no")], "there is no"),
    ):
        assert cli.main(arguments) == 2
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1
