"""The table of verbs: each has a function and help; help and messages about arguments import no torch; flags
that were renamed still work."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch

from lamina.cli.entry import main
from lamina.cli.old_flags import RENAMED, with_new_flags
from lamina.cli.verbs import VERBS
from lamina.core.config import merge, to_mapping
from lamina.core.errors import LaminaError
from lamina.core.records import to_yaml
from lamina.evaluate.dense.train import begin_evaluation
from lamina.evaluate.protocol import RunOptions
from lamina.evaluate.segment.recipes import SegmentRecipe, segment_recipe
from lamina.train.distributed import Ranks

NAMES = [verb.name for verb in VERBS]
MISTAKES = {
    "dance": ["there is no verb 'dance'"],
    "evaluate": ["needs one of: knn, linear"],
    "evaluate liner runs/mff photos/": ["needs one of: knn, linear", "did you mean linear?"],
    "pretrain": ["DATA"],
    "pretrain photos/ --out": ["--out"],
    "pretrain photos/ --out runs/mff --mask-ration 0.5": ["--mask-ration"],
    "pretrain photos/ --out runs/mff --epochs many": ["epochs", "many"],
    "pretrain photos/ --out runs/mff --mask-ratio 1.5": ["mask_ratio", "above 0 and below 1"],
    "pretrain photos/ --out runs/mff --recipe nonesuch": ["choose one of"],
    "pretrain photos/ --out runs/mff --config nowhere.yaml": ["cannot be read"],
    "pretrain photos/ --out runs/mff --fusion none --fusion.projection mlp": ["fusion.projection"],
    "pretrain photos/ --out runs/mff --time 2h --epochs 3": ["time budget", "train.epochs"],
    "plan": ["--images"],
    "plan --images many": ["number of images"],
    "plan --images 1M --gpu h1000": ["no GPU 'h1000'", "did you mean h100?"],
    "evaluate knn runs/mff": ["DATA"],
    "evaluate knn runs/mff photos/ --k many": ["many"],
    "evaluate finetune runs/mff": ["DATA"],
    "evaluate finetune runs/mff photos/ --nonsense 1": ["--nonsense"],
    "evaluate finetune runs/mff photos/ --epochs many": ["many"],
    "evaluate fewshot runs/mff photos/ --epochs 3": ["--epochs would", "add --classifier finetune"],
    "evaluate fewshot runs/mff photos/ --out a --resume": ["--out, --resume would", "leave them out"],
    "evaluate robustness a b --published imagenet-a --kinds fog": ["kinds have no effect on imagenet-a"],
    "evaluate segment runs/mff photos/ --head none": ["no head 'none'"],
    "evaluate detect runs/mff photos/ --recipe coco": ["no recipe 'coco'"],
    "evaluate all runs/mff --out runs/all": ["MODEL ... DATA"],
    "analyze rank runs/mff --images 0": ["images"],
    "analyze hessian runs/mff --bottom many": ["many"],
    "study pair": ["--out"],
    "tokenizer train photos/": ["--out"],
    "report": ["name at least one run"],
    "report a b": ["--out FILE.html"],
}
BLOCKED = """
import contextlib, io, json, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "timm", "torchvision", "scipy", "numpy", "sklearn", "matplotlib"):
            raise RuntimeError(f"{name} is imported")
sys.meta_path.insert(0, Blocked())
from lamina.cli.entry import main
answers = {}
for words in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words.split())
        except SystemExit as end:
            code = end.code or 0
        except RuntimeError as error:
            code = f"{error}"
    answers[words] = [code, out.getvalue(), err.getvalue()]
json.dump(answers, sys.stdout)
"""


@pytest.fixture(scope="module")
def without_torch():
    """Exit code, stdout and stderr of commands in a process that can import no torch."""
    commands = ["--help", "--version", "methods", "recipes", *(f"{name} --help" for name in NAMES)]
    commands += ["pretrain --help-all", *MISTAKES]
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "100", "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", NAMES)
def test_every_verb_explains_itself_without_torch(name, without_torch):
    code, out, err = without_torch[f"{name} --help"]
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: lamina {name} ")


def test_lists_need_no_torch(without_torch):
    for command in ("--help", "--version", "methods", "recipes", "pretrain --help-all"):
        assert without_torch[command][0] == 0, without_torch[command]
    assert all(f"lamina {name} " in without_torch["--help"][1] for name in NAMES)
    rows = without_torch["--help"][1].split("\n\n")[1].splitlines()
    assert len(rows) == len(NAMES), "a row of the overview is longer than its line"
    assert "2111.06377" in without_torch["methods"][1]
    assert "ade20k-upernet" in without_torch["recipes"][1]


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_in_the_arguments_is_one_line_without_torch(words, without_torch):
    code, out, err = without_torch[words]
    assert (code, out) == (2, "")
    assert re.fullmatch(r"lamina: .+\n", err)
    assert all(part in err for part in MISTAKES[words])


@pytest.mark.parametrize("verb", VERBS, ids=NAMES)
def test_a_row_names_a_function_and_says_what_it_does(verb):
    assert callable(verb.load())
    assert verb.help[0].isupper() or not verb.help[0].isalpha()
    assert not verb.help.endswith(".")


def test_a_renamed_flag_stands_for_the_new_one_and_says_so():
    for words, old, new in RENAMED:
        verb = next(name for name in NAMES if f"{name} ".startswith(f"{words} "))
        given = ["MODEL", old, "3", f"{old.replace('-', '_').replace('__', '--', 1)}=4", "--seed", "1"]
        args, notes = with_new_flags(verb, given)
        assert args == ["MODEL", new, "3", f"{new}=4", "--seed", "1"]
        assert notes == [f"{old} is now called {new}; the next version will refuse {old}"]
    assert with_new_flags("pretrain", ["--encoder", "vit"]) == (["--encoder", "vit"], [])


@pytest.mark.parametrize("row", RENAMED, ids=" ".join)
def test_the_new_name_of_a_flag_is_an_option_and_the_old_one_is_none(row, without_torch):
    words, old, new = row
    helps = [without_torch[f"{name} --help"][1] for name in NAMES if f"{name} ".startswith(f"{words} ")]
    flags = {flag for text in helps for flag in re.findall(r"--[\w.-]+", text)}
    assert new in flags
    assert old not in flags


def test_an_old_flag_is_mentioned_on_stderr(tmp_path, capsys):
    assert main(["evaluate", "knn", str(tmp_path / "none"), "sample:photos", "--chosen-on", "9"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert (
        first
        == "lamina: --chosen-on is now called --selection-samples; the next version will refuse --chosen-on"
    )
    assert "there is no encoder" in second


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("evaluate knn", r"Folder that features .* by a hash of .* deleted at any time"),
        (
            "study pair",
            r"Length of the runs\. .* full: at most 150 minutes",
        ),  # its second line begins with 150
    ],
)
def test_a_help_text_is_broken_where_the_terminal_ends_alone(verb, words, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit):
        main([*verb.split(), "--help"])
    assert any(re.search(words, line) for line in capsys.readouterr().out.splitlines())


def test_settings_and_recipes_of_earlier_versions_have_former_names(tmp_path):
    recipe = segment_recipe("ade20k-linear")
    former = {"batch_size": "at_once", "max_side": "longest", "max_class_share": "most_of_one_class"}
    now = to_mapping(recipe)
    before = {**now, "window": {former.get(name, name): value for name, value in now["window"].items()}}
    assert set(former.values()) < set(before["window"])
    assert merge(recipe, before) == recipe
    assert merge(recipe, {"window": {"at_once": 2}}).window.batch_size == 2
    ranks, go_on = Ranks(0, 1, torch.device("cpu")), RunOptions(resume=True)
    (tmp_path / "evaluation.yaml").write_text(to_yaml({"recipe": before}))
    begin_evaluation(ranks, None, tmp_path, {"recipe": now}, go_on, kind=SegmentRecipe)
    other = merge(recipe, {"window": {"max_side": 9}})
    with pytest.raises(LaminaError, match="max_side"):
        begin_evaluation(ranks, None, tmp_path, {"recipe": to_mapping(other)}, go_on, kind=SegmentRecipe)
