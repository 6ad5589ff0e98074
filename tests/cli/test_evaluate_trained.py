"""The verbs of protocols that train, as users call them: fields by name, plans, files, and one line for what is wrong."""

import json
from pathlib import Path

import pytest
import yaml
from safetensors.torch import save_file

from helpers.runs import shaken, stripes_folder, toy_recipe, toy_run
from lamina.cli import entry as cli
from lamina.core.records import read_yaml
from lamina.encoder.build import build_vit
from lamina.encoder.options import EncoderOptions
from lamina.evaluate.finetune.recipes import finetune_recipes
from lamina.evaluate.result_files import read_scores
from lamina.runs.run import Run


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return stripes_folder(tmp_path / "data")


@pytest.fixture
def run(tmp_path: Path) -> str:
    toy_run(tmp_path / "run", toy_recipe())
    return str(tmp_path / "run")


def test_a_plan_is_shown_and_nothing_written(run, folder, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["evaluate", "finetune", run, folder, "--dry-run", "--optim.layer-decay", "0.5"]) == 0
    told = capsys.readouterr().out
    assert "layer_decay: 0.5" in told
    assert "18 images, 100 steps of 18" in told
    assert "MiB in fp32 for 18 images" in told
    assert "batch 18, all images there are" in told
    assert cli.main(["evaluate", "linear-mae", run, folder, "--dry-run"]) == 0
    assert "291 parameters to train" in capsys.readouterr().out  # 96 x 3 and 3
    assert sorted(tmp_path.rglob("*")) == before


def test_fine_tuning_takes_any_field_and_keeps_its_score(run, folder, tmp_path, capsys):
    file, config = tmp_path / "score.json", tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({"supervised": {"mixup": 0.0, "cutmix": 0.0}, "data": {"erase": 0.0}}))
    arguments = ["evaluate", "finetune", run, folder, "--max-steps", "2", "--batch-size", "6", "--seed", "3"]
    arguments += ["--workers", "0", "--device", "cpu", "--config", str(config), "--data.erase", "0.1"]
    assert cli.main([*arguments, "--json", str(file)]) == 0
    told = capsys.readouterr().out
    assert "finetune" in told
    assert "report" in told
    score = json.loads(file.read_text())
    assert (score["metric"], score["seed"], score["n_test"]) == ("top1", 3, 9)
    place = Path(run) / "evaluations" / Path(score["settings"]["folder"]).name
    recipe = yaml.safe_load((place / "recipe.yaml").read_text())["recipe"]
    assert recipe["supervised"]["mixup"] == 0
    assert recipe["data"]["erase"] == 0.1
    assert recipe["train"]["batch_size"] == 6
    assert (Path(run) / "results").is_dir()
    assert "finetune" in (Path(run) / "report.html").read_text()
    assert cli.main(arguments) == 2
    assert "--resume" in capsys.readouterr().err
    assert cli.main([*arguments, "--resume"]) == 0


def test_few_labels_and_robustness_print_their_numbers(run, folder, tmp_path, capsys):
    few = ["evaluate", "fewshot", run, folder, "--per-class", "1", "2", "--draws", "2", "--workers", "0"]
    assert cli.main([*few, "--json", str(tmp_path / "few.json")]) == 0
    assert [s.protocol for s in read_scores(tmp_path / "few.json")] == [
        "fewshot-linear-1",
        "fewshot-linear-2",
    ]
    told = capsys.readouterr().out
    assert "fewshot-linear-2" in told
    assert "all 2 draws gave one accuracy; the interval is over test images" in told
    tuned = [
        "--classifier",
        "finetune",
        "--recipe",
        "finetune-small",
        "--epochs",
        "1",
        "--out",
        str(tmp_path / "few"),
    ]
    assert cli.main([*few[:4], "--per-class", "2", "--draws", "1", *tuned, "--workers", "0"]) == 0
    assert "fewshot-finetune-2" in capsys.readouterr().out
    (trained,) = (tmp_path / "few").iterdir()
    settings = Run(trained).recipe()
    assert (settings.name, settings.train.epochs) == ("finetune-small", 1.0)
    robust = [
        "evaluate",
        "robustness",
        run,
        folder,
        "--kinds",
        "brightness",
        "--images",
        "6",
        "--workers",
        "0",
    ]
    assert cli.main([*robust, "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "brightness 5: top-1 error" in told
    assert "mean error (generated, without" in told
    assert (tmp_path / "out" / "measured.json").is_file()


def test_wrong_arguments_are_one_line(run, folder, tmp_path, capsys):
    for arguments, words in (
        (["finetune", run, folder, "--recipe", "mae"], "of finetune; choose one of"),
        (["finetune", "nowhere", folder], "no encoder 'nowhere'"),
        (["finetune", f"untrained:{run}", folder], "--out"),
        (["finetune", run, str(tmp_path / "none")], "there is no"),
        (["linear-mae", run, folder, "--optim.kindd", "x"], "kindd"),
        (["fewshot", run, folder, "--per-class", "0"], "1 or more"),
        (["fewshot", run, folder, "--epochs", "3"], "add --classifier finetune"),
        (
            ["fewshot", run, folder, "--classifier", "finetune", "--recipe", "mae-small"],
            "of finetune; choose one of",
        ),
        (["fewshot", run, folder, "--lists", str(tmp_path / "no.txt")], "cannot be read"),
        (["robustness", run, folder, "--kinds", "rain"], "no corruption 'rain'"),
        (["robustness", run, folder, "--published", "imagenet-c"], "is no classifier"),
    ):
        assert cli.main(["evaluate", *arguments]) == 2, arguments
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1


def test_every_protocol_has_recipes_named_after_it(capsys):
    assert cli.main(["recipes"]) == 0
    told = capsys.readouterr().out
    for name in finetune_recipes():
        assert name in told


@pytest.fixture(scope="module")
def unusual(tmp_path_factory) -> Path:
    """Weights of a network 40 wide, which no timm name has, so that the file does not say its heads."""
    file = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    options = EncoderOptions("vit_tiny_patch16_224", (32, 32), 8, 3, 40, 2, 5)
    save_file(shaken(build_vit(options)).state_dict(), file)
    return file


@pytest.mark.parametrize(
    "verb", ["linear-mae", "attentive", "finetune", "fewshot --classifier finetune --per-class 2 --draws 1"]
)
def test_heads_of_an_unusual_width_are_taken_from_the_command_line(verb, unusual, folder, tmp_path, capsys):
    name, *more = verb.split()
    command = ["evaluate", name, str(unusual), folder, "--encoder.heads", "5", "--device", "cpu", *more]
    command += ["--workers", "0", "--out", str(tmp_path / "out")]
    if name == "fewshot":
        small = tmp_path / "small.yaml"
        small.write_text("train: {max_steps: 1, batch_size: 4}")
        command += ["--config", str(small)]
    else:
        command += ["--max-steps", "1", "--batch-size", "4"]
    assert cli.main(command) == 0, capsys.readouterr().err
    (recipe,) = (tmp_path / "out").rglob("recipe.yaml")
    said = read_yaml(recipe)["recipe"]["encoder"]
    assert (said["width"], said["depth"], said["heads"]) == (40, 2, 5)
