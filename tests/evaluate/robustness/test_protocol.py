"""Robustness of a classifier: errors part by part, published sets by their classes, killed and resumed."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.classifier_heads import options_of, task_of
from helpers.locks import FORK, hold
from helpers.runs import shaken, stripes_folder, toy_recipe, toy_run
from lamina.core.errors import LaminaError
from lamina.core.records import read_json, write_json
from lamina.data.loading.loader import eval_batches
from lamina.data.open import open_source
from lamina.data.options import DataOptions
from lamina.evaluate.load_classifier import Classifier, open_classifier
from lamina.evaluate.protocol import RunOptions
from lamina.evaluate.robustness import protocol as robustness
from lamina.evaluate.robustness.corruptions.corrupt import Corruption
from lamina.evaluate.robustness.corruptions.kinds import KINDS, available_kinds
from lamina.evaluate.robustness.imagenet_variants import CLASSES, imagenet_wnids
from lamina.evaluate.robustness.options import RobustnessOptions
from lamina.evaluate.robustness.partial_results import PartialResults
from lamina.evaluate.robustness.protocol import evaluate_robustness
from lamina.features.options import ComputeOptions
from lamina.interop.export_classifier import export_supervised
from lamina.recipes.build import build_method
from lamina.runs.run import Run
from lamina.train import checkpoint

CPU = ComputeOptions(batch_size=8, workers=0, device="cpu")
TWO = ("brightness", "pixelate")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return stripes_folder(tmp_path / "data")


@pytest.fixture
def run(tmp_path: Path) -> str:
    toy_run(tmp_path / "run", toy_recipe())
    return str(tmp_path / "run")


def test_an_encoder_is_judged_by_its_probe_and_errors_are_those_of_corrupted_images(folder, run):
    score = evaluate_robustness(run, folder, RobustnessOptions(kinds=TWO), compute=CPU)
    probe = open_classifier(run, open_source(folder, "train"), CPU)
    assert probe.kind.startswith("linear probe")
    test = open_source(folder, "val")
    for kind in TWO:
        errors = []
        for severity in (1, 2, 3, 4, 5):
            change = Corruption(kind, severity, 0)
            (batch,) = eval_batches(test, (32, 48), 3, 99, 0, probe.reading, change)
            errors.append(float((probe.logits(batch.images).argmax(1) != batch.labels).float().mean()))
        assert score.more[f"{kind} error"] == pytest.approx(sum(errors) / 5)
    assert score.value == pytest.approx(np.mean([score.more[f"{kind} error"] for kind in TWO]))
    assert score.metric.startswith("mean error (generated, without ")
    assert not any(name.startswith("mCE") for name in score.more)  # these are no classes of ImageNet
    assert (Path(run) / "results").is_dir()


def test_killed_and_called_again_it_measures_what_is_missing(folder, run, tmp_path, monkeypatch):
    options, going = RobustnessOptions(kinds=TWO), RunOptions(out=tmp_path / "out")
    whole = evaluate_robustness(run, folder, options, RunOptions(out=tmp_path / "whole"), compute=CPU)
    calls = []
    plain = Classifier.predict

    def counted(self, source, computing, subset=None, change=None):
        calls.append(change)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return plain(self, source, computing, subset, change)

    monkeypatch.setattr(Classifier, "predict", counted)
    with pytest.raises(KeyboardInterrupt) as stop:
        evaluate_robustness(run, folder, options, going, compute=CPU)
    kept = f"3 parts are kept in {tmp_path / 'out' / 'measured.json'}: the same command goes on from there"
    assert stop.value.__notes__ == [kept]
    again = evaluate_robustness(run, folder, options, going, compute=CPU)
    assert (again.more, again.confusion) == (whole.more, whole.confusion)
    right, n = (sum(c[2] for c in again.confusion.counts if c[0] == c[1] or every) for every in (False, True))
    assert again.more["clean error"] == pytest.approx(1 - right / n)  # of images as they are
    assert len(calls) == 11 + 1  # clean and ten, the fourth twice
    with pytest.raises(LaminaError, match=r"other settings \(seed\)"):
        evaluate_robustness(run, folder, options, RunOptions(out=tmp_path / "out", seed=1), compute=CPU)


def published(root: Path, wnids: list[str], kinds: tuple[str, ...]) -> None:
    for kind in kinds:
        for severity in range(1, 6):
            images(root / kind / str(severity), wnids)


def images(root: Path, wnids: Sequence[str]) -> None:
    """An image of each class, grey with a white frame."""
    for wnid in wnids:
        (root / wnid).mkdir(parents=True)
        pixels = np.full((40, 40, 3), 100, dtype=np.uint8)
        pixels[[0, 1, -2, -1]] = pixels[:, [0, 1, -2, -1]] = 255
        Image.fromarray(pixels).save(root / wnid / "0.png")


def test_published_sets_are_judged_among_their_own_classes(tmp_path, monkeypatch):
    """A classifier of ImageNet that always says a class that the images have not, then the right one."""
    known = imagenet_wnids()
    wnids = [known[i] for i in (3, 10, 500)]
    published(tmp_path / "c", wnids, ("brightness", "fog"))
    corners = []

    def logits(images):
        corners.append(int(images[..., 0, 0].min()) - int(images[..., 16, 16].max()))
        found = torch.zeros(len(images), 1000)
        found[:, 7] = 9.0
        found[torch.arange(len(images)), torch.tensor([3, 10, 500])] = 1.0
        return found

    fake = Classifier("fake", None, "trained", logits, known, (32, 32), 3, DataOptions(), "0" * 64)
    monkeypatch.setattr(robustness, "open_classifier", lambda *_: fake)
    score = evaluate_robustness(
        "fake", tmp_path / "c", RobustnessOptions(published="imagenet-c"), compute=CPU
    )
    assert score.value == 0
    assert min(corners) > 100  # ImageNet-C's images are crops: all of each is looked at
    assert (
        score.metric
        == f"mean error (published, without {', '.join(k for k in KINDS if k not in ('brightness', 'fog'))})"
    )
    assert next(value for name, value in score.more.items() if name.startswith("mCE")) == 0
    options = RobustnessOptions(published="imagenet-a")
    with pytest.raises(LaminaError, match="has 3 classes where imagenet-a has 200"):
        evaluate_robustness("fake", tmp_path / "c" / "fog" / "1", options, compute=CPU)


@pytest.mark.parametrize("name", ["imagenet-a", "imagenet-r", "imagenet-sketch"])
def test_other_published_sets_have_an_accuracy_among_their_classes(name, tmp_path, monkeypatch):
    """A classifier that prefers a class that the set has not, and after it one that it has."""
    known = imagenet_wnids()
    inside = list(range(0, 1000, 1000 // CLASSES[name]))
    outside = min(set(range(1000)) - set(inside), default=None)
    images(tmp_path / name, [known[i] for i in inside])
    corners = []

    def logits(images):
        corners.append(int(images[..., 0, 0].min()) - int(images[..., 16, 16].max()))
        found = torch.zeros(len(images), 1000)
        found[:, inside[3]] = 1.0
        if outside is not None:
            found[:, outside] = 9.0
        return found

    fake = Classifier("fake", None, "trained", logits, known, (32, 32), 3, DataOptions(), "0" * 64)
    monkeypatch.setattr(robustness, "open_classifier", lambda *_: fake)
    score = evaluate_robustness("fake", tmp_path / name, RobustnessOptions(published=name), compute=CPU)
    assert (score.metric, score.n_test, score.data) == ("top1", len(inside), name)
    assert score.value == pytest.approx(1 / len(inside))
    assert max(corners) <= 0  # photographs: their middle, without the frame


def test_what_was_measured_is_that_of_these_weights_and_kinds(tmp_path):
    """A checkpoint that was replaced, and other kinds in one folder."""
    folder = stripes_folder(tmp_path / "data")
    toy_run(tmp_path / "run", toy_recipe())
    model, out = tmp_path / "run", RunOptions(out=tmp_path / "out")
    bright = RobustnessOptions(kinds=("brightness",), images=6)
    first = evaluate_robustness(model, folder, bright, out, compute=CPU)
    packed = RobustnessOptions(kinds=("jpeg_compression",), images=6)
    found = evaluate_robustness(model, folder, packed, out, compute=CPU)
    fresh = evaluate_robustness(model, folder, packed, RunOptions(out=tmp_path / "fresh"), compute=CPU)
    assert (found.value, found.more) == (fresh.value, fresh.more)
    assert "brightness error" not in found.more
    assert evaluate_robustness(model, folder, bright, out, compute=CPU).more == first.more
    write = checkpoint.Checkpoint(
        checkpoint.model_tensors(shaken(build_method(toy_recipe()), seed=9)), {}, {"step": 3}
    )
    shutil.rmtree(Run(model).checkpoints)
    checkpoint.write(Run(model).checkpoints, 3, write)
    with pytest.raises(LaminaError, match=r"other settings \(network_sha256\)"):
        evaluate_robustness(model, folder, bright, out, compute=CPU)


@pytest.mark.parametrize("part", ["train", "val"])
def test_what_was_measured_is_of_these_images(part, folder, run, tmp_path):
    """The same words and names, and other pixels: those that are tested, or those that the probe learns."""
    options, going = RobustnessOptions(kinds=("brightness",)), RunOptions(out=tmp_path / "out")
    first = evaluate_robustness(run, folder, options, going, compute=CPU)
    shutil.copytree(folder, tmp_path / "kept")
    stripes_folder(tmp_path / "other", seed=5)
    shutil.rmtree(Path(folder) / part)
    shutil.copytree(tmp_path / "other" / part, Path(folder) / part)
    messages = {"train": r"other settings \(probe_images\)", "val": "holds clean of other images"}
    with pytest.raises(LaminaError, match=messages[part]):
        evaluate_robustness(run, folder, options, going, compute=CPU)
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "kept", folder)
    assert evaluate_robustness(run, folder, options, going, compute=CPU).more == first.more
    file = tmp_path / "out" / "measured.json"
    content = read_json(file)
    del content["images"], content["settings"]["probe_images"]  # as lamina wrote it before
    write_json(file, content)
    again = evaluate_robustness(run, folder, options, going, compute=CPU)
    assert again.more == first.more
    assert any("does not say which images were measured" in note for note in again.notes)


def test_one_process_measures_into_a_folder(tmp_path):
    """While another process has the folder's lock, nothing is measured into it; and the other way round."""
    ready, ends = FORK.Event(), FORK.Event()
    other = FORK.Process(target=hold, args=(str(tmp_path), ready, ends))
    other.start()
    assert ready.wait(30)
    with (
        pytest.raises(LaminaError, match="is being written by another process"),
        PartialResults.opened(tmp_path, {}),
    ):
        pass
    ends.set()
    other.join(30)
    with PartialResults.opened(tmp_path, {}):
        ready.clear()
        other = FORK.Process(target=hold, args=(str(tmp_path), ready, ends))
        other.start()
        other.join(30)
    assert not ready.is_set()  # it was refused


def test_exported_classifiers_and_runs_on_labels_are_taken_as_they_are(tmp_path):
    options = options_of()
    task = task_of(options).eval()
    files = export_supervised(
        task,
        options,
        None,
        tmp_path / "x.safetensors",
        class_names=list("abcde"),
        data=DataOptions(eval_crop_share=0.9),
    )
    found = open_classifier(files.weights)
    images = torch.rand(2, 3, 16, 24)
    assert torch.equal(found.logits(images), task.logits(images))
    assert found.classes == tuple("abcde")
    assert found.reading.eval_crop_share == 0.9
    assert (found.kind, found.image_size) == ("trained", (16, 24))


@pytest.mark.parametrize("changes", [{"pool": "cls"}, {"probe_data": "FOLDER"}])
def test_options_of_a_probe_are_refused_for_a_trained_classifier(changes, folder, tmp_path):
    options = options_of()
    files = export_supervised(
        task_of(options).eval(), options, None, tmp_path / "x.safetensors", class_names=list("abcde")
    )
    requested = RobustnessOptions(**{k: folder if v == "FOLDER" else v for k, v in changes.items()})
    with pytest.raises(LaminaError, match=f"leave out --{next(iter(changes)).replace('_', '-')}"):
        evaluate_robustness(files.weights, folder, requested, RunOptions(out=tmp_path / "out"), compute=CPU)
    assert not (tmp_path / "out").exists()


def test_what_is_no_classifier_says_so(run, monkeypatch):
    with pytest.raises(LaminaError, match="is no classifier"):
        open_classifier(run)
    with pytest.raises(LaminaError, match="no corruption 'rain'"):
        RobustnessOptions(kinds=("rain",))
    monkeypatch.setattr("timm.create_model", lambda *_, **__: (_ for _ in ()).throw(OSError("offline")))
    with pytest.raises(LaminaError, match="could not be loaded"):
        open_classifier("timm/vit_tiny_patch16_224")


def test_resume_is_refused_since_robustness_always_continues():
    with pytest.raises(LaminaError, match="--resume has no effect: leave it out"):
        evaluate_robustness("nowhere", "nothing", run_options=RunOptions(resume=True))


def test_a_damaged_file_of_measurements_is_one_line(tmp_path):
    with PartialResults.opened(tmp_path, {"a": 1}) as parts:
        parts.add("x", 3, 4)
    with PartialResults.opened(tmp_path, {"a": 1}) as parts:
        assert parts.error("x") == 0.25
    with PartialResults.opened(tmp_path, {"a": 1}, overwrite=True) as parts:
        assert "x" not in parts
    (tmp_path / "measured.json").write_text("{")
    with (
        pytest.raises(LaminaError, match="cannot be used: it is no JSON"),
        PartialResults.opened(tmp_path, {"a": 1}),
    ):
        pass
    assert set(available_kinds()) <= set(KINDS)
