"""Several models by several protocols: names, seeds, killed and resumed, the files and what they say."""

import json
import re
import shlex
import shutil
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from helpers.runs import stripes_folder, toy_recipe, toy_run
from lamina.cli import entry as cli
from lamina.core.errors import LaminaError
from lamina.core.records import read_json, write_json
from lamina.evaluate.compare.models import columns_of
from lamina.evaluate.compare.options import CompareOptions
from lamina.evaluate.compare.run import compare
from lamina.evaluate.compare.table import Comparison
from lamina.evaluate.finetune import protocol as finetuning
from lamina.evaluate.finetune.adapt import classifier_recipe
from lamina.evaluate.probes import evaluate_knn
from lamina.evaluate.robustness import protocol as robustness
from lamina.evaluate.score import Score
from lamina.features.options import FeatureOptions
from lamina.report.compare_page import write_comparison
from lamina.runs.run import Run

OPTIONS = CompareOptions(
    protocols=("knn", "linear", "finetune"),
    seeds=2,
    epochs=1.0,
    workers=0,
    device="cpu",
)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return stripes_folder(tmp_path / "data")


@pytest.fixture
def runs(tmp_path: Path) -> tuple[str, str]:
    toy_run(tmp_path / "mae", toy_recipe(fusion="none"))
    toy_run(tmp_path / "mff", toy_recipe())
    return str(tmp_path / "mae"), str(tmp_path / "mff")


def test_models_have_names_and_a_run_for_each_seed():
    columns = columns_of(["runs/mae", "MFF=runs/a,runs/b", "untrained:runs/mae"])
    assert [column.name for column in columns] == ["mae", "MFF", "untrained:mae"]
    assert columns[1].specs == ("runs/a", "runs/b")
    assert [columns[1].spec_of(seed) for seed in (0, 1)] == ["runs/a", "runs/b"]
    assert [columns[0].spec_of(seed) for seed in (0, 1)] == ["runs/mae", "runs/mae"]
    assert [c.name for c in columns_of(["runs/mae", "runs/mff@3"])] == ["mae", "mff@3"]
    assert [c.name for c in columns_of(["a/x=1/run", "b/run"])] == ["a/x=1/run", "b/run"]
    for models, sentence in (
        ([], "at least one"),
        (["A=x", "A=y"], "one name"),
        (["MAE_1=x", "MAE-1=y"], "one name"),  # their scores would lie in one file
        (["A="], "names no model"),
        (["runs/mae", "runs/mae"], "twice"),
    ):
        with pytest.raises(LaminaError, match=sentence):
            columns_of(models)


def test_killed_and_called_again_it_tells_the_same(folder, runs, tmp_path, monkeypatch):
    mae, mff = runs
    models = [f"MAE={mae}", f"MFF={mff}"]
    options = replace(OPTIONS, protocols=("knn", "finetune"))
    whole = compare(models, folder, tmp_path / "whole", options)
    calls, plain = [], finetuning.evaluate_trained

    def dying(protocol, spec, *args, **kwargs):
        calls.append((protocol, spec))
        chosen = kwargs["recipe"]  # one epoch of a recipe of 100: warm-up is as much shorter
        assert (chosen.train.epochs, chosen.optim.warmup_epochs) == (1.0, 0.05)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return plain(protocol, spec, *args, **kwargs)

    monkeypatch.setattr(finetuning, "evaluate_trained", dying)
    with pytest.raises(KeyboardInterrupt) as stop:
        compare(models, folder, tmp_path / "broken", options)
    kept = f"3 of 6 evaluations are kept in {tmp_path / 'broken'}: the same command goes on there"
    assert stop.value.__notes__ == [kept]  # two kNN, one of four fine-tunings
    messages = []
    broken = compare(models, folder, tmp_path / "broken", options, messages.append)
    assert len(calls) == 2 * 2 + 1  # what was measured is not trained again
    assert not any(line.startswith("knn") for line in messages)
    for name in ("MAE", "MFF"):
        assert [(s.protocol, s.seed, s.value, s.interval) for s in broken[name]] == [
            (s.protocol, s.seed, s.value, s.interval) for s in whole[name]
        ]
    counts = {p: sum(s.protocol == p for s in whole["MAE"]) for p in options.protocols}
    assert counts == {"knn": 1, "finetune": 2}
    with pytest.raises(LaminaError, match=r"other settings \(epochs\)"):
        compare(models, folder, tmp_path / "whole", CompareOptions(epochs=2.0))


def test_no_name_is_another_networks(folder, runs, tmp_path):
    """Scores are kept by the model's name, so that the name must go on to be that model's."""
    options = CompareOptions(protocols=("knn",), workers=0, device="cpu")
    mae, mff = runs
    out = tmp_path / "out"
    (first,) = compare([f"M={mae}"], folder, out, options)["M"]
    with pytest.raises(LaminaError, match=rf"M was measured as {mae}, not {mff}"):
        compare([f"M={mff}"], folder, out, options)
    with pytest.raises(LaminaError, match=r"as 1 network\(s\), not 2"):
        compare([f"M={mae},{mff}"], folder, out, options)
    both = [f"M={mae}", f"N={mae},{mff}"]
    assert compare(both, folder, out, options)["M"] == [first]
    grown = compare([f"N={mae},{mff},{mae}"], folder, out, options)["N"]
    assert [score.model for score in grown] == [mae, mff, mae]
    assert len(compare(both, folder, out, options)["N"]) == 2  # fewer again
    compare([f"N_1={mff}"], folder, out, options)
    with pytest.raises(LaminaError, match=rf"N-1 was measured as {mff}, not {mae}"):  # one file for both
        compare([f"N-1={mae}"], folder, out, options)
    shutil.rmtree(mae)
    assert compare([f"M={mae}"], folder, out, options)["M"] == [first]  # it is gone, and all is measured
    more = replace(options, protocols=("knn", "linear"), seeds=1)
    with pytest.raises(LaminaError, match="no encoder"):
        compare([f"M={mae}"], folder, out, more)
    toy_run(Path(mae), toy_recipe(fusion="none"), steps=(4,))
    with pytest.raises(LaminaError, match="has changed since it was measured"):
        compare([f"M={mae}"], folder, out, options)
    (out / "models.json").write_text("[3]")
    with pytest.raises(LaminaError, match=r"models\.json cannot be used"):
        compare([f"M={mae}"], folder, out, options)
    (out / "models.json").unlink()
    with pytest.raises(LaminaError, match=r"models\.json is missing"):
        compare([f"M={mae}"], folder, out, options)


def test_scores_of_other_images_do_not_stand_in_for_these(runs, tmp_path, monkeypatch):
    """The same words from another working directory, or other pixels in the same files."""
    options = CompareOptions(protocols=("knn",), workers=0, device="cpu")
    out, messages = tmp_path / "out", []
    for place, seed in (("w1", 1), ("w2", 2)):
        stripes_folder(tmp_path / place / "data", seed=seed)
    monkeypatch.chdir(tmp_path / "w1")
    first = compare([f"M={runs[0]}"], "data", out, options)
    monkeypatch.chdir(tmp_path / "w2")
    with pytest.raises(LaminaError, match=r"on other images of the same names \(labelled\)"):
        compare([f"M={runs[0]}"], "data", out, options)
    shutil.copytree(tmp_path / "w1", tmp_path / "w3")  # a copy is the same images
    monkeypatch.chdir(tmp_path / "w3")
    assert compare([f"M={runs[0]}"], "data", out, options, messages.append) == first
    assert messages == []
    content = read_json(out / "comparison.json")
    del content["images"]  # as lamina wrote it before
    write_json(out / "comparison.json", content)
    assert compare([f"M={runs[0]}"], "data", out, options, messages.append) == first
    assert "does not say which images were measured" in messages[0]
    monkeypatch.chdir(tmp_path / "w2")  # but from now on it does
    with pytest.raises(LaminaError, match="other images"):
        compare([f"M={runs[0]}"], "data", out, options)


def test_robustness_says_of_which_classifier(folder, runs, tmp_path, monkeypatch):
    """Whatever the order and whoever is asked later, a row holds classifiers of one kind."""
    calls, plain = [], robustness.evaluate_robustness

    def spied(model, data, options, run_options, compute, encoder=None):
        calls.append(str(model))
        few = replace(options, kinds=("brightness",), images=4)
        return plain(model, data, few, run_options, compute=compute)

    monkeypatch.setattr(robustness, "evaluate_robustness", spied)
    out, small = tmp_path / "out", {"seeds": 1, "epochs": 1.0, "workers": 0, "device": "cpu"}
    alone = CompareOptions(protocols=("robustness",), **small)
    both = CompareOptions(protocols=("robustness", "finetune"), **small)
    (probe,) = compare([runs[0]], folder, out, alone)["mae"]
    tuned = {score.protocol: score for score in compare([runs[0]], folder, out, both)["mae"]}
    assert calls == [runs[0], str(out / "trainings" / "finetune" / "mae-seed0")]
    assert (probe.protocol, set(tuned)) == ("robustness-linear", {"finetune", "robustness-finetune"})
    assert tuned["robustness-finetune"].settings["classifier"] == "trained"
    assert compare([runs[0]], folder, out, alone)["mae"] == [probe]
    (out / "scores" / "robustness-finetune" / "mae-seed0.json").unlink()
    shutil.rmtree(out / "trainings")
    with pytest.raises(LaminaError, match="mae-seed0 is gone"):
        compare([runs[0]], folder, out, both)


def test_recipes_differ_by_protocol(folder, runs, tmp_path, capsys):
    tuned = "finetune: {recipe: finetune-s, train: {epochs: 1, batch_size: 4}, optim: {base_lr: 0.01}}"
    config = tmp_path / "recipes.yaml"
    config.write_text(f"{tuned}\ndetect: {{head: {{masks: false}}}}\n")
    small = ["--out", str(tmp_path / "out"), "--seeds", "1", "--workers", "0", "--device", "cpu"]
    arguments = ["evaluate", "all", runs[0], folder, *small, "--protocols", "finetune"]
    assert cli.main([*arguments, "--config", str(config)]) == 0
    (score,) = read_json(tmp_path / "out" / "scores" / "finetune" / "mae-seed0.json")["scores"]
    settings = Run(tmp_path / "out" / "trainings" / "finetune" / "mae-seed0").recipe()
    assert (settings.name, settings.train.batch_size, settings.optim.base_lr) == ("finetune-s", 4, 0.01)
    assert score["seconds"] > 0
    capsys.readouterr()
    assert cli.main(arguments) == 2
    assert "other settings (recipes)" in capsys.readouterr().err
    assert classifier_recipe("finetune", runs[0], {}) is None
    chosen = classifier_recipe("finetune", runs[0], {"optim": {"warmup_epochs": 10.0}}, 4.0)
    assert (chosen.name, chosen.train.epochs, chosen.optim.warmup_epochs) == ("finetune", 4.0, 0.4)


def test_dense_protocols_are_given_their_recipes(runs, tmp_path, monkeypatch):
    given = {}

    def measured(name):
        def evaluate(spec, data, going, recipe, encoder):
            given[name] = recipe
            return Score(name, spec, 0, data, "x", 0.5, None, 1, 1, 0, {}, {}, (), 1.0)

        return evaluate

    for name in ("segment", "detect"):
        monkeypatch.setattr(f"lamina.evaluate.{name}.protocol.evaluate_{name}", measured(name))
    options = CompareOptions(protocols=("segment", "detect"), seeds=1)
    recipes = {"segment": {"head": "upernet"}, "detect": {"head": {"masks": False}}}
    compare([runs[0]], "sample:doom", tmp_path / "out", options, recipes=recipes)
    assert (given["segment"].name, given["segment"].head) == ("upernet-small", "upernet")
    assert (given["detect"].name, given["detect"].head.masks) == ("detect-small", False)


def test_a_probes_seconds_hold_all_of_it(folder, runs, tmp_path, monkeypatch):
    plain = evaluate_knn

    def slow(*args, **kwargs):
        time.sleep(0.3)
        return plain(*args, **kwargs)

    monkeypatch.setattr("lamina.evaluate.probes.evaluate_knn", slow)
    options = CompareOptions(protocols=("knn",), workers=0, device="cpu")
    (score,) = compare([runs[0]], folder, tmp_path / "out", options)["mae"]
    assert score.seconds >= 0.3


@pytest.mark.parametrize(
    ("recipes", "sentence"),
    [
        ("knn: {train: {epochs: 1}}", "not for 'knn'"),
        ("finetune: 3", "finetune takes a mapping"),
        ("finetune: {train: {epoch: 1}}", "finetune.train.epoch is not an option; did you mean"),
        ("finetune: {recipe: finetuned}", "there is no recipe 'finetuned'"),
        ("finetune: {recipe: finetun}", "of finetune; choose one of"),
        ("finetune: {recipe: mae-small}", "there is no recipe 'mae-small' of finetune"),
        ("finetune: {recipe: ''}", "of finetune; choose one of"),
        ("linear-mae: {recipe: finetune}", "of linear-mae; choose one of"),
        ("segment: {head: magic}", "there is no head 'magic'"),
        ("segment: {recipe: ade20k-dpt, head: upernet}", "has the head dpt"),
        ("detect: {train: {seed: 3}}", "detect.train.seed is given by --seed or --seeds"),
        ("finetune: {data: {workers: 3}}", "finetune.data.workers is given by --workers"),
        ("segment: {recipe: 3}", "segment.recipe is the name of a recipe"),
        ("recipe: finetune-s", "not for 'recipe'"),
        ("- 3", "must hold a mapping"),
    ],
)
def test_wrong_recipes_are_one_line(recipes, sentence, tmp_path, capsys):
    config = tmp_path / "recipes.yaml"
    config.write_text(recipes)
    out = tmp_path / "o"
    assert cli.main(["evaluate", "all", "run", "data", "--out", str(out), "--config", str(config)]) == 2
    errors = capsys.readouterr().err
    assert sentence in errors
    assert errors.count("\n") == 1
    assert not out.exists()


def test_runs_of_several_seeds_are_the_seeds(folder, runs, tmp_path):
    found = compare(
        [f"both={runs[0]},{runs[1]}"], folder, tmp_path / "out", CompareOptions(protocols=("knn",))
    )
    assert [score.seed for score in found["both"]] == [0, 1]
    assert [score.model for score in found["both"]] == list(runs)


def test_the_files_say_what_was_measured(folder, runs, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    arguments = ["evaluate", "all", runs[0], f"untrained:{runs[0]}", folder, "--out", str(out)]
    arguments += ["--protocols", "knn", "fewshot", "--workers", "0", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["lamina", *arguments])
    assert cli.main(arguments) == 0
    output = capsys.readouterr().out
    assert "fewshot-linear-5" in output
    assert "fewshot-linear-5" in Run(runs[0]).report_file.read_text()
    page, result = (out / "README.md").read_text(), json.loads((out / "result.json").read_text())
    assert result["command"] == shlex.join(["lamina", *arguments])
    assert [row["protocol"] for row in result["rows"]][:1] == ["knn (last, mean)"]
    assert re.search(r"\| knn \(last, mean\) \| top1 \| 18 \| 9 \| 33\.3 \| 1 \| \d", page)
    html = (out / "index.html").read_text()
    assert "<script" not in html
    assert "fewshot-linear-10" in html


def test_all_models_are_read_alike_and_other_features_are_rows_of_their_own(folder, runs, tmp_path):
    """MFF has four kinds of features, MAE two; none is chosen for a model by itself."""
    mae, mff = runs
    options = CompareOptions(protocols=("knn", "linear"), seeds=1, workers=0, device="cpu")
    found = compare([mae, mff], folder, tmp_path / "out", options)
    assert {name: [(s.protocol, s.variant) for s in scores] for name, scores in found.items()} == {
        name: [("knn", "last, mean"), ("linear", "last, mean")] for name in ("mae", "mff")
    }
    both = FeatureOptions(features=("last", "fused"), pools=("mean", "cls"))
    alone = evaluate_knn(mff, folder, features=both, workers=0, device="cpu")
    wide = replace(options, features=both.features, pools=both.pools, protocols=("knn",))
    more = compare([mae, mff], folder, tmp_path / "out", wide)
    rows = {row.protocol: [c and c.values for c in row.cells] for row in Comparison.of(more).rows}
    test = {f"{row.features}, {row.pool}": row.top1 for row in alone.rows if row.encoder == "trained"}
    assert [rows[f"knn ({way})"][1] for way in test] == [(top1,) for top1 in test.values()]
    assert list(rows) == ["knn (last, mean)", "knn (last, cls)", "knn (fused, mean)", "knn (fused, cls)"]
    assert rows["knn (fused, cls)"][0] is None
    assert compare([mae, mff], folder, tmp_path / "out", options) == found  # narrow again: as it was


def test_options_that_no_protocol_reads_are_said(folder, runs, tmp_path):
    out, messages = tmp_path / "out", []
    requested = CompareOptions(
        protocols=("knn",), epochs=2.0, few_per_class=(3,), pools=("cls",), workers=0, device="cpu"
    )
    recipes = {"finetune": {"train": {"batch_size": 4}}}
    compare([runs[0]], folder, out, requested, messages.append, recipes)
    given = ("--epochs", "--few-per-class", "the recipe of finetune")
    assert messages[:-2] == [f"{each} has no effect on knn" for each in given]
    assert messages[-2] == "knn, mae, seed 0"


def test_scores_whose_features_were_chosen_for_each_model_are_left_out(folder, runs, tmp_path):
    options = CompareOptions(protocols=("knn",), workers=0, device="cpu")
    out = tmp_path / "out"
    (found,) = compare([runs[0]], folder, out, options)["mae"]
    old = out / "scores" / "knn" / "mae-seed0.json"
    old.parent.mkdir()
    old.write_text(json.dumps([asdict(replace(found, value=0.123, variant=""))]))
    messages = []
    assert compare([runs[0]], folder, out, options, messages.append)["mae"] == [found]
    assert messages == ["left out: knn of an earlier version, which chose features for each model"]


def test_a_page_says_where_ways_differ(tmp_path):
    from helpers.scores import tuned

    unlike = {"a": [tuned(0.5)], "b": [tuned(0.6, variant="finetune-b, 50 epochs")]}
    alike = {"a": [tuned(0.5)], "b": [tuned(0.6)]}
    for columns, shown in ((unlike, True), (alike, False)):
        page = write_comparison(columns, "data", tmp_path)[2].read_text()
        assert ('<span class="quiet">finetune-s, 100 epochs</span>' in page) == shown


def test_names_are_shown_as_text(tmp_path):
    from helpers.scores import score

    files = write_comparison({"<b>x</b>": [score(0.5)]}, "<i>data</i>", tmp_path)
    html = files[2].read_text()
    assert "<b>x" not in html
    assert "&lt;b&gt;x" in html


def test_wrong_arguments_are_one_line(folder, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for arguments, words in (
        (["nowhere", folder, "--out", str(tmp_path / "o"), "--protocols", "knn"], "no encoder 'nowhere'"),
        (["nowhere", folder, "--out", str(tmp_path / "full")], "is not a comparison"),
        (["nowhere", folder, "--out", str(tmp_path / "o"), "--protocols", "magic"], "magic"),
        (
            ["nowhere", folder, "--out", str(tmp_path / "o"), "--seeds", "0"],
            "seeds is 0; it must be 1 or more",
        ),
    ):
        assert cli.main(["evaluate", "all", *arguments]) == 2
        errors = capsys.readouterr().err
        assert words in errors
        assert errors.count("\n") == 1
