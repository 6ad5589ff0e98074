"""Files of a run that are damaged, of two steps, or of a stranger: refused in one line, or made anew on resume."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import lamina
from helpers.options import TINY_NETWORK
from helpers.runs import toy_recipe, toy_run
from lamina.callbacks.export_encoder import EncoderExport
from lamina.cli.entry import main
from lamina.core.errors import LaminaError
from lamina.core.records import sealed
from lamina.evaluate.result_files import result_file
from lamina.interop.export import export_timm
from lamina.interop.inspect import inspect
from lamina.interop.load import load_encoder
from lamina.report.page import write_report
from lamina.runs.run import Run, load_task
from lamina.tokenizer.folder import TokenizerFolder, load_tokenizer
from lamina.tokenizer.options import TokenizerOptions
from lamina.tokenizer_training import train_tokenizer
from lamina.train import checkpoint

DATA = "sample:photos?crop=16&most=2"
TINY = TINY_NETWORK | {"encoder.depth": 3, "train.log_every_steps": 1}
TOKENIZER = {"image_size": 16, "batch_size": 8, "levels": (4, 4), "width": 8, "depth": 1, "workers": 0}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    lamina.pretrain(
        DATA, out, "mae-small", image_size=16, patch_size=4, batch_size=8, max_steps=2, workers=0,
        checkpoint_every_steps=1, options=TINY,
    )  # fmt: skip
    return out


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("tokenizer") / "tok"
    train_tokenizer(DATA, out, TokenizerOptions(**TOKENIZER, epochs=0.1))
    return out


def contents(folder: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir() if f.is_file()}


def flip(file: Path, at: float = 0.9) -> None:
    data = bytearray(file.read_bytes())
    data[int(at * len(data))] ^= 8
    file.write_bytes(data)


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# The encoder of a run: of one step, verified, made anew


@pytest.mark.parametrize("name", ["model.safetensors", "fusion.safetensors", "config.json"])
def test_a_damaged_file_of_an_encoder_is_refused(run, name):
    load_encoder(run / "encoder")
    flip(run / "encoder" / name)
    with pytest.raises(LaminaError, match=f"{name} cannot be used: .*; export or fetch it again") as error:
        load_encoder(run / "encoder")
    one_line(error)


@pytest.mark.parametrize("name", ["fusion.safetensors", "config.json"])
def test_files_of_two_steps_are_no_encoder(run, tmp_path, name):
    export_timm(f"{run}@1", tmp_path / "earlier")
    shutil.copy(tmp_path / "earlier" / name, run / "encoder" / name)
    with pytest.raises(LaminaError, match=f"{name} .*it is of step 1, and model.safetensors of step 2"):
        load_encoder(run / "encoder")


def leave_nothing(encoder: Path, earlier: Path) -> None:
    shutil.rmtree(encoder)


def leave_the_one_before(encoder: Path, earlier: Path) -> None:
    shutil.rmtree(encoder)
    shutil.copytree(earlier, encoder)


def leave_two_steps(encoder: Path, earlier: Path) -> None:
    shutil.copy(earlier / "fusion.safetensors", encoder)


def leave_damage(encoder: Path, earlier: Path) -> None:
    flip(encoder / "model.safetensors")


def leave_a_part(encoder: Path, earlier: Path) -> None:
    encoder.rename(encoder.with_name(".unfinished-old-encoder"))
    shutil.copytree(earlier, encoder.with_name(".unfinished-encoder"))


@pytest.mark.parametrize(
    "leave", [leave_nothing, leave_the_one_before, leave_two_steps, leave_damage, leave_a_part]
)
def test_a_resume_brings_the_encoder_to_the_checkpoint(run, tmp_path, leave):
    """The run is finished: nothing is left to train, and the encoder is still seen to."""
    expected = contents(run / "encoder")
    export_timm(f"{run}@1", tmp_path / "earlier")
    leave(run / "encoder", tmp_path / "earlier")
    assert lamina.pretrain(DATA, run, resume=True).step == 2
    assert contents(run / "encoder") == expected
    assert not [name for name in os.listdir(run) if name.startswith(".")]


def test_an_encoder_that_is_right_is_left_alone_and_notes_in_it_stay(run):
    (run / "encoder" / "README.md").write_text("mine")
    before = {f.name: f.stat().st_ino for f in (run / "encoder").iterdir()}
    lamina.pretrain(DATA, run, resume=True)
    assert {f.name: f.stat().st_ino for f in (run / "encoder").iterdir()} == before
    flip(run / "encoder" / "model.safetensors")
    lamina.pretrain(DATA, run, resume=True)
    assert (run / "encoder" / "README.md").read_text() == "mine"
    load_encoder(run / "encoder")


def test_an_encoder_folder_is_seen_as_it_was_or_as_it_is(tmp_path, monkeypatch):
    """At each rename and write of a swap the folder is of one step, or not there."""
    recipe = toy_recipe()
    methods = toy_run(tmp_path / "run", recipe, (1, 2))
    place = tmp_path / "run" / "encoder"
    keep = EncoderExport(place, recipe.encoder, recipe.fusion)
    keep.on_checkpoint(1, place, methods[1])
    seen = []

    def looked(real):
        def wrapper(*args, **kwargs):
            seen.append(load_encoder(place).origin.step if place.exists() else None)
            result = real(*args, **kwargs)
            seen.append(load_encoder(place).origin.step if place.exists() else None)
            return result

        return wrapper

    for owner, name in ((os, "rename"), (os, "replace"), (Path, "replace")):
        monkeypatch.setattr(owner, name, looked(getattr(owner, name)))
    keep.on_checkpoint(2, place, methods[2])
    assert len(seen) > 6
    assert set(seen) <= {1, 2, None}
    assert sorted(seen, key=lambda step: {1: 0, None: 1, 2: 2}[step]) == seen


def test_exports_of_the_same_weights_have_the_same_bytes(run, tmp_path):
    for name in ("a", "b", "c"):
        export_timm(run, tmp_path / name)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")
    assert contents(tmp_path / "a") == contents(run / "encoder")


def test_an_export_without_a_digest_opens_and_inspect_says_so(run, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    weights = run / "encoder" / "model.safetensors"
    assert ("SHA-256", "verified") in inspect(run / "encoder").facts
    expected = load_encoder(run / "encoder")
    with safe_open(weights, framework="pt") as opened:
        text = opened.metadata()["lamina"]
    for file in (weights, run / "encoder" / "fusion.safetensors"):
        save_file(load_file(file), file, metadata={"format": "pt", "lamina": text})
    (run / "encoder" / "config.json").write_text(text)
    found = load_encoder(run / "encoder")
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(found(images, "fused").patches, expected(images, "fused").patches)
    assert dict(inspect(run / "encoder").facts)["SHA-256"].startswith("none")


def test_a_fusion_that_is_gone_is_said(run, capsys):
    (run / "encoder" / "fusion.safetensors").unlink()
    load_encoder(run / "encoder")
    assert "fusion.safetensors is missing: it has no fused features" in capsys.readouterr().err


def test_weights_of_a_damaged_checkpoint_start_nothing(run):
    flip(run / "checkpoints" / "step-1" / "model.safetensors")
    for spec in (f"{run}@1", run / "checkpoints" / "step-1" / "model.safetensors"):
        with pytest.raises(LaminaError, match=r"step-1 is damaged .model.safetensors was changed"):
            lamina.pretrain(DATA, run.with_name("new"), "mae-small", image_size=16, patch_size=4, batch_size=8,
                            max_steps=1, workers=0, options=TINY, init=spec)  # fmt: skip


# A tokenizer


def test_a_damaged_tokenizer_is_refused_and_made_anew(tokenizer, tmp_path):
    out = Path(shutil.copytree(tokenizer, tmp_path / "tok"))
    expected = contents(out)
    flip(out / "tokenizer.safetensors")
    with pytest.raises(LaminaError, match=r"tokenizer.safetensors cannot be used: it was changed") as error:
        load_tokenizer(out)
    one_line(error)
    for leave in (lambda: None, (out / "tokenizer.safetensors").unlink):
        leave()
        train_tokenizer(DATA, out, TokenizerFolder(out).options(), resume=True)
        load_tokenizer(out)
        assert contents(out)["tokenizer.safetensors"] == expected["tokenizer.safetensors"]
    flip(out / "config.json", 0.4)
    with pytest.raises(LaminaError, match=r"config.json cannot be used"):
        load_tokenizer(out)


def test_weights_of_another_tokenizer_are_refused(tokenizer, tmp_path):
    out = Path(shutil.copytree(tokenizer, tmp_path / "tok"))
    other = TokenizerFolder(tmp_path / "other")
    other.start(TokenizerOptions(**TOKENIZER, epochs=7.0), "data", "0" * 64)
    shutil.copy(out / "tokenizer.safetensors", other.path)
    with pytest.raises(LaminaError, match=r"of another training than config.json"):
        load_tokenizer(other.path)


# A recipe that is none


BOMB = "a: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"b{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
RECIPES = {
    "bomb": BOMB.encode(),
    "no UTF-8": b"source: \xff\n",
    "no YAML": b"recipe: [\n",
    "deep": b"[" * 600,
    "a list": b"- 1\n",
    "odd": b"recipe: 5\nsource: x\nimages: 3\nnames_sha256: y\n",
    "empty": b"",
    "changed": None,
}


@pytest.mark.parametrize("kind", RECIPES)
def test_a_recipe_that_is_none_is_refused_in_one_line_everywhere(run, tmp_path, capsys, kind):
    content = RECIPES[kind] or (run / "recipe.yaml").read_bytes().replace(b"heads: 2", b"heads: 3")
    (run / "recipe.yaml").write_bytes(content)
    for command in (
        ["inspect", str(run)],
        ["export", str(run), "--out", str(tmp_path / "x.safetensors")],
        ["embed", str(run), DATA, "--out", str(tmp_path / "x.npz")],
        ["pretrain", DATA, "--out", str(run), "--resume"],
    ):
        assert main(command) == 2, command
        told = capsys.readouterr().err
        assert told.count("\n") == 1, command
        assert "recipe.yaml" in told, command
    page = write_report([run], tmp_path / "report.html").read_text()
    assert kind in ("a list", "odd", "empty") or "recipe.yaml" in page


# Folders of a stranger


def manifest_for(folder: Path, **names: str) -> None:
    """A manifest whose seal is right, of files that somebody chose."""
    files = {
        name: {"size": (folder / path).stat().st_size, "sha256": hashlib.sha256(b"").hexdigest()}
        for name, path in names.items()
    }
    (folder / "manifest.json").write_text(sealed({"format": 1, "step": int(folder.name[5:]), "files": files}))


def resealed(folder: Path) -> None:
    """As the manifest would be had lamina written these files."""
    names = ("model.safetensors", "optimizer.safetensors", "state.json")
    files = {
        name: {
            "size": (folder / name).stat().st_size,
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        }
        for name in names
    }
    (folder / "manifest.json").write_text(sealed({"format": 1, "step": int(folder.name[5:]), "files": files}))


@pytest.mark.parametrize("name", ["/dev/zero", "pipe", "../../recipe.yaml"])
def test_a_manifest_names_its_own_files_alone(run, name):
    folder = run / "checkpoints" / "step-2"
    os.mkfifo(folder / "pipe")
    content = json.loads((folder / "manifest.json").read_text())
    content.pop("seal")
    content["files"][name] = {"size": 0, "sha256": "0" * 64}
    (folder / "manifest.json").write_text(sealed(content))
    assert checkpoint.verify(folder) == "manifest.json lists other files than lamina writes"
    assert load_encoder(run).origin.step == 1  # the one before


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
def test_files_of_a_checkpoint_are_plain(run, name):
    folder = run / "checkpoints" / "step-2"
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert checkpoint.verify(folder) == f"{name}: it is no plain file"
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    assert "it is a link" in checkpoint.verify(folder)


@pytest.mark.parametrize(
    "state",
    ["[" * 100_000, "[]", '{"train": {"step": 1e999}}', '{"train": {"step": "two"}}', '{"train": 3}', "{}",
     '{"train": {"step": 2, "total_steps": 2, "seconds": Infinity}, "run": []}', "nonsense"],
)  # fmt: skip
def test_an_odd_state_is_refused_in_one_line(run, capsys, state):
    for step in (1, 2):
        (run / "checkpoints" / f"step-{step}" / "state.json").write_text(state)
        resealed(run / "checkpoints" / f"step-{step}")
    assert main(["pretrain", DATA, "--out", str(run), "--resume"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "step-2" in told
    assert "Traceback" not in told


def test_metrics_linked_to_a_device_are_left_out(run, tmp_path):
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to("/dev/zero")
    for name in ("environment.json", "skipped.json"):
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)
    page = write_report([run], tmp_path / "report.html").read_text()
    assert "metrics.jsonl was left out: it is a link" in page
    with pytest.raises(LaminaError, match=r"metrics.jsonl cannot be used: it is a link"):
        Run(run).metrics()


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_the_log_is_no_way_out_of_the_run(run, tmp_path, kind):
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    (run / "train.log").unlink()
    os.mkfifo(run / "train.log") if kind == "pipe" else (run / "train.log").symlink_to(victim)
    with pytest.raises(LaminaError, match=r"train.log cannot be used: it is (a link|no plain file)"):
        lamina.pretrain(DATA, run, resume=True)
    assert victim.read_text() == "mine"


def test_results_of_a_stranger_are_not_waited_for(tmp_path):
    file = result_file(tmp_path, "knn", "photos", "", 0)
    os.mkfifo(file)
    assert result_file(tmp_path, "knn", "photos", "", 0) == file
    file.unlink()
    file.write_text("[" * 200_000)
    assert result_file(tmp_path, "knn", "photos", "", 0) == file


def test_a_run_of_before_there_were_digests_goes_on(run):
    """As lamina 0.1 wrote it: no line above the recipe, no digest in rows, no count of rows in the state."""
    recipe = (run / "recipe.yaml").read_text().splitlines(keepends=True)
    (run / "recipe.yaml").write_text("".join(recipe[1:]))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    bare = [{name: value for name, value in row.items() if name != "sha256"} for row in rows]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bare))
    shutil.rmtree(run / "checkpoints" / "step-2")
    state = run / "checkpoints" / "step-1" / "state.json"
    content = json.loads(state.read_text())
    content.pop("metrics_rows")
    state.write_text(json.dumps(content, indent=1) + "\n")
    resealed(state.parent)
    shutil.rmtree(run / "encoder")
    assert lamina.pretrain(DATA, run, resume=True).step == 2
    assert [row["step"] for row in Run(run).metrics()] == [1, 2]
    assert load_task(run)[0] is not None
    assert load_encoder(run / "encoder").origin.step == 2


def test_lost_rows_are_said_on_a_resume(run, capsys):
    rows = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    shutil.rmtree(run / "checkpoints" / "step-2")
    (run / "metrics.jsonl").write_bytes(b"")
    lamina.pretrain(DATA, run, resume=True)
    assert "metrics.jsonl: 1 of 1 rows are gone, 0 are kept" in capsys.readouterr().out
    assert "1 of 1 rows are gone" in (run / "train.log").read_text()
    assert len(rows) == 2


def test_rows_that_are_gone_are_noted_in_the_report(run, tmp_path):
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(lines[0])
    assert "1 of 2 rows of metrics.jsonl are gone" in write_report([run], tmp_path / "a.html").read_text()
    (run / "metrics.jsonl").unlink()
    assert "2 of 2 rows of metrics.jsonl are gone" in write_report([run], tmp_path / "b.html").read_text()


def test_a_picture_that_a_kill_cut_short_is_gone_after_a_resume(run):
    (run / "pictures").mkdir(exist_ok=True)
    (run / "pictures" / ".original-0.png.123.tmp").write_bytes(b"half")
    (run / "pictures" / "kept.png").write_bytes(b"whole")
    lamina.pretrain(DATA, run, resume=True)
    assert [f.name for f in (run / "pictures").iterdir() if f.name.endswith((".tmp", "kept.png"))] == [
        "kept.png"
    ]


def test_a_run_that_is_older_than_a_field_keeps_computing_what_it_did(run):
    """New runs multiply in TF32, decode JPEGs reduced and fill pixels without data; earlier ones did not."""
    file = run / "recipe.yaml"
    content = yaml.safe_load(file.read_text())
    assert content["recipe"]["train"].pop("tf32") is True
    assert content["recipe"]["data"].pop("jpeg_decoding") == "reduced"
    assert content["recipe"]["data"].pop("nodata") == "file"
    file.write_text(yaml.safe_dump(content))
    older = Run(run).recipe()
    assert (older.train.tf32, older.data.jpeg_decoding, older.data.nodata) == (False, "full", "keep")
