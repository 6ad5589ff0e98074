"""Ctrl-C in what does not train: one line says what was finished, what is kept and how to go on; it is true."""

import json
import os
import signal

import pytest
import torch

from helpers.runs import stripes_data, stripes_folder, toy_recipe, toy_run
from lamina.analyze.curvature.density import Density, Trace
from lamina.analyze.curvature.lanczos import Eigenvalue
from lamina.analyze.curvature.mini_batch import BatchCurvature
from lamina.analyze.partial_hessian import PartialHessian
from lamina.cli import progress as bars
from lamina.cli.entry import main
from lamina.cli.progress import AnalysisBar
from lamina.core.batch import Batch
from lamina.evaluate import probes
from lamina.evaluate.probes import evaluate_knn, evaluate_linear
from lamina.train.signals import Stopped, StopRequest, raised_signals

PLACE = ["--device", "cpu", "--batch-size"]


@pytest.fixture
def run(tmp_path):
    toy_run(tmp_path / "run", toy_recipe())
    return tmp_path / "run"


@pytest.fixture
def folder(tmp_path):
    return stripes_folder(tmp_path / "data")


@pytest.mark.parametrize("evaluate", [evaluate_knn, evaluate_linear])
@pytest.mark.parametrize("cached", [False, True])
def test_a_probe_says_which_features_are_kept(evaluate, cached, run, tmp_path):
    totals = []

    def progress(done, total, wait):
        totals.append(total)
        if totals == [24, 9]:  # training images, then test images
            raise KeyboardInterrupt

    asked = {"workers": 0, "device": "cpu", "cache": tmp_path / "cache" if cached else None}
    with pytest.raises(KeyboardInterrupt) as stop:
        evaluate(run, stripes_data(24, 9), progress=progress, **asked)
    passed, kept = stop.value.__notes__
    assert passed == "9 of 9 images had passed the encoder"
    if cached:
        said = (
            f"features of all training images were computed and are kept in {tmp_path / 'cache'}: the same "
        )
        assert kept == f"{said}command goes on from there"
    else:
        assert kept.endswith("and nothing is kept; with --cache FOLDER features are kept part by part")
    totals.clear()
    evaluate(run, stripes_data(24, 9), progress=lambda done, total, wait: totals.append(total), **asked)
    assert totals == ([9] if cached else [24, 9])


@pytest.mark.parametrize("verb", ["embed", "evaluate knn"])
def test_the_command_line_says_it_in_one_line(verb, run, folder, tmp_path, monkeypatch, capsys):
    def interrupted(self, done, total, wait):
        raise KeyboardInterrupt

    monkeypatch.setattr(bars.ImagesBar, "__call__", interrupted)
    out = ["--out", str(tmp_path / "x.npz")] if verb == "embed" else []
    assert main([*verb.split(), str(run), folder, *out, *PLACE, "4", "--workers", "0"]) == 130
    (line,) = capsys.readouterr().err.splitlines()
    n = 27 if verb == "embed" else 18
    assert line.startswith(f"lamina: interrupted; 4 of {n} images had passed the encoder; ")
    assert "nothing is kept" in line
    assert not (tmp_path / "x.npz").exists()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1"])
def test_other_signals_end_a_probe_as_ctrl_c_does(name, run, folder, monkeypatch, capsys, tmp_path):
    """`evaluate all` between two trainings: what is finished is kept and said; handlers come back."""
    number, seen = getattr(signal, name), []
    before = signal.signal(number, signal.SIG_DFL)
    plain = probes.evaluate_linear

    def asked(*args, **kwargs):
        seen.append(args)
        os.kill(os.getpid(), number)
        return plain(*args, **kwargs)

    monkeypatch.setattr(probes, "evaluate_linear", asked)
    out = tmp_path / "out"
    command = ["evaluate", "all", str(run), folder, "--protocols", "knn", "linear", "--seeds", "1"]
    try:
        assert main([*command, "--out", str(out), "--workers", "0", *PLACE, "8"]) == 75
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    told = capsys.readouterr().err.splitlines()[-1]
    kept = f"1 of 2 evaluations are kept in {out}: the same command goes on there"
    assert told == f"lamina: interrupted by {name}; {kept}"
    assert len(seen) == 1
    assert len(list((out / "scores").rglob("*.json"))) == 1
    assert not list(out.rglob("*.tmp"))


def test_trainings_inside_note_signals_as_before():
    """SIGTERM in a training is a request to stop at the next step, also where a verb raises it elsewhere."""
    with raised_signals():
        with StopRequest() as request:
            os.kill(os.getpid(), signal.SIGTERM)
            assert request.signal == signal.SIGTERM
        with StopRequest() as request:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert request.signal == signal.SIGUSR1
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGTERM)


def test_an_analysis_says_how_far_it_was():
    bar, stop = AnalysisBar(), KeyboardInterrupt()
    bar("mae: images", 64, 256)
    bar.__exit__(KeyboardInterrupt, stop, None)
    assert stop.__notes__ == [
        "mae: images (64 of 256)",
        "nothing of it is kept: an analysis is written when it is complete",
    ]


def test_a_verb_without_a_note_says_so_too(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("lamina.cli.entry._run", interrupted)
    assert main(["methods"]) == 130
    assert capsys.readouterr().err == "lamina: interrupted; give the same command again\n"


def test_a_hessian_goes_on_where_it_was(folder, tmp_path, monkeypatch, capsys):
    run = tmp_path / "small"
    toy_run(run, toy_recipe(fusion="none", width=12, heads=3))
    asked = ["--data", folder, *PLACE, "2", "--batches", "3", "--top", "1", "--bottom", "0", "--tol", "0.5"]
    asked += ["--trace-probes", "2"]
    plain = PartialHessian.add
    added = []

    def dying(self, name, number, found):
        plain(self, name, number, found)
        added.append(number)
        if len(added) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(PartialHessian, "add", dying)
    partial = run / "analyses" / "hessian.partial.json"
    assert main(["analyze", "hessian", str(run), *asked]) == 130
    told = capsys.readouterr().err.splitlines()[-1]
    assert (
        told
        == f"lamina: interrupted; 2 of 3 mini-batches are kept in {partial}: the same command goes on there"
    )
    added.clear()
    monkeypatch.setattr(PartialHessian, "add", lambda *found: (added.append(found[2]), plain(*found)))
    other = [*asked, "--seed", "5", "--out", str(tmp_path / "other")]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / partial.name).write_text(partial.read_text())
    assert main(["analyze", "hessian", str(run), *other]) == 0
    assert "is of other models, images or settings, and is replaced" in capsys.readouterr().out
    added.clear()
    assert main(["analyze", "hessian", str(run), *asked]) == 0
    assert "2 mini-batches of an interrupted call are taken from" in capsys.readouterr().out
    assert added == [2]
    assert not partial.exists()
    again = json.loads((run / "analyses" / "hessian.json").read_text())["result"]
    assert main(["analyze", "hessian", str(run), *asked, "--out", str(tmp_path / "whole")]) == 0
    whole = json.loads((tmp_path / "whole" / "hessian.json").read_text())["result"]
    assert again == whole  # to the last bit


def test_all_of_a_mini_batch_comes_back_from_disk(tmp_path):
    task, batches = torch.nn.Linear(2, 2), [Batch(torch.zeros(1, 3, 4, 4))]
    value = Eigenvalue(1 / 3, 1e-7, True)
    found = BatchCurvature(
        4, 0.1, (value,), (), (value, value), Trace(2 / 3, None, 1), Density((0.1, 0.2), (0.3, 0.7), 1), 41
    )
    PartialHessian.open(tmp_path, {"a": task}, batches, {"tol": 0.1}).add("a", 0, found)
    again = PartialHessian.open(tmp_path, {"a": task}, batches, {"tol": 0.1})
    assert again.get("a", 0) == found
    text = again.file.read_text()
    again.file.write_text(text.replace("0.1", "0.2", 1))  # one number is another: nothing of it is taken
    assert "damaged" in PartialHessian.open(tmp_path, {"a": task}, batches, {"tol": 0.1}).note
    again.file.unlink()
    os.mkfifo(again.file)  # which is never waited for
    assert "damaged" in PartialHessian.open(tmp_path, {"a": task}, batches, {"tol": 0.1}).note
    again.file.unlink()
    again.file.write_text(text)
    with torch.no_grad():
        task.weight += 1
    assert PartialHessian.open(tmp_path, {"a": task}, batches, {"tol": 0.1}).get("a", 0) is None
    (tmp_path / "hessian.partial.json").write_text("{")
    assert "damaged" in PartialHessian.open(tmp_path, {"a": task}, batches, {"tol": 0.1}).note
