"""Features of a source in one pass, the choice that cannot see the test set, and both protocols end to end."""

import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from helpers.runs import stripes, stripes_data, stripes_folder, toy_recipe, toy_run
from lamina.core.errors import LaminaError
from lamina.data.sources import ArraySource
from lamina.evaluate.probes import evaluate_knn, evaluate_linear, probe_rows
from lamina.evaluate.result_files import result_file, score_file
from lamina.evaluate.score import Score
from lamina.features.data import LabelledData, open_labelled
from lamina.features.extract import collect
from lamina.features.knn import probe_knn
from lamina.features.linear import probe_linear
from lamina.features.options import ComputeOptions, FeatureOptions, KNNOptions, LinearOptions
from lamina.features.pooling import BackboneVectors, PixelVectors
from lamina.features.probe import ProbeResult
from lamina.features.table import FeatureKey, FeatureTable
from lamina.interop.backbone import Backbone
from lamina.interop.load import load_encoder
from lamina.report.page import write_report
from lamina.report.read_run import read_runs
from lamina.report.result_views import result_views

HERE = ComputeOptions(batch_size=7, workers=0, device="cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "mff"
    toy_run(folder, toy_recipe(), steps=(3, 6))
    return folder


class Counter(nn.Module):
    """Counts the images that pass."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.images = encoder, 0

    def __call__(self, images):
        self.images += len(images)
        return self.encoder(images)


def test_a_result_says_that_its_test_images_were_trained_on(run, tmp_path):
    stripes_folder(tmp_path / "parts")
    stripes_folder(tmp_path / "parts2")
    (tmp_path / "parts" / "train").rename(tmp_path / "whole")  # classes, and no held-out part
    names = sorted(str(file.relative_to(tmp_path / "whole")) for file in (tmp_path / "whole").rglob("*.png"))
    assert len(names) == 18
    digest = hashlib.sha256(b"".join(name.encode() + b"\0" for name in names)).hexdigest()
    again = tmp_path / "mff"
    shutil.copytree(run, again)
    recipe = (again / "recipe.yaml").read_text().partition("\n")[2]  # without its digest
    (again / "recipe.yaml").write_text(recipe.replace("images: 10", "images: 18").replace("0" * 64, digest))
    options = {"options": KNNOptions(k=(1,)), "workers": 0, "device": "cpu"}
    noted = [evaluate_knn(each, tmp_path / "whole", **options).notes for each in (run, again)]
    assert [any("images that" in note for note in notes) for notes in noted] == [False, True]
    assert not any(
        "images that" in note for note in evaluate_knn(again, tmp_path / "parts2", **options).notes
    )


def test_every_image_passes_the_encoder_once_and_keeps_its_place(run):
    source, backbone = stripes(20, 1), load_encoder(run)
    counter = Counter(BackboneVectors(backbone))
    calls = []
    here = ComputeOptions(7, 0, "cpu", lambda *call: calls.append(call))
    table = collect(source, {"trained": counter, "pixels": PixelVectors()}, (32, 48), 3, None, here)
    assert counter.images == 20
    assert [call[:2] for call in calls] == [(7, 20), (14, 20), (20, 20)]
    assert all(0 <= wait <= 1 for _, _, wait in calls)
    assert table.timing.images == 20
    assert table.timing.images_per_second == pytest.approx(20 / table.timing.seconds, rel=0.05)
    assert table.index.tolist() == list(range(20))
    assert table.labels.tolist() == source.labels
    assert {k for k in table.vectors if k.encoder == "trained"} == {
        FeatureKey("trained", f, p) for f in ("last", "fused") for p in ("cls", "mean")
    }
    images = torch.stack([source.read(i) for i in range(20)])
    with torch.no_grad():
        expected = backbone(images, "fused").patches.mean(1)
    # read through eval_batches' crop, which keeps images of this size whole
    here = ComputeOptions(20, 0, "cpu")
    whole = collect(source, {"t": BackboneVectors(backbone)}, (32, 48), 3, share_of_all(), here)
    torch.testing.assert_close(
        whole.vectors[FeatureKey("t", "fused", "mean")], expected, rtol=1e-5, atol=1e-5
    )


def share_of_all():
    from lamina.data.options import DataOptions

    return DataOptions(eval_crop_share=1.0)


def test_large_images_are_averaged_for_the_pixel_baseline():
    images = torch.rand(2, 3, 128, 96)
    pixels = PixelVectors()(images)["pixels", "-"]
    assert pixels.shape[1] <= 12_288
    small = PixelVectors()(torch.full((1, 3, 8, 8), 51, dtype=torch.uint8))["pixels", "-"]
    assert torch.equal(small, torch.full((1, 192), 0.2))
    torch.testing.assert_close(pixels.mean(), images.mean(), atol=5e-3, rtol=0)


def test_features_that_are_not_finite_are_refused():
    with pytest.raises(LaminaError, match="features last of the encoder are not finite"):
        collect(stripes(6, 1), {"encoder": lambda x: {("last", "cls"): x[:, 0, 0] * torch.nan}}, (32, 48), 3)


def table(vectors, labels):
    return FeatureTable(
        {FeatureKey(*k.split()): v for k, v in vectors.items()}, torch.arange(len(labels)), labels, ()
    )


PROBES = {
    "knn": partial(probe_knn, options=KNNOptions(k=(1, 5))),
    "linear": partial(probe_linear, options=LinearOptions(), seed=0),
}


@pytest.mark.parametrize("protocol", PROBES)
def test_selection_never_sees_the_test_set(protocol):
    """One kind of features is right on the training images alone, the other on the test images alone."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    good = torch.eye(3)[labels] + 0.01 * torch.randn(60, 3, generator=generator)
    bad = torch.randn(60, 3, generator=generator)
    rows = {}
    for name, truth in (("true", labels), ("scrambled", (labels + 1) % 3)):
        train = table({"trained last cls": good, "trained last mean": bad}, labels)
        test = table({"trained last cls": good, "trained last mean": good}, truth)
        rows[name], _ = probe_rows(train, test, PROBES[protocol])
    for a, b in zip(rows["true"], rows["scrambled"], strict=True):
        assert (a.chosen, a.settings, a.validation_top1) == (b.chosen, b.settings, b.validation_top1)
    chosen = [row for row in rows["scrambled"] if row.chosen]
    assert [row.pool for row in chosen] == ["cls"]
    assert chosen[0].top1 == 0  # a bad test result does not make another row the chosen one
    assert rows["true"][0].top1 == 1


def test_a_remark_names_few_rows_and_counts_many():
    def probe(train, labels, test):
        notes = ("an edge", *(("slow",) if train[0, 0] < 2 else ()))
        return ProbeResult({}, 0.5, torch.zeros(len(test), dtype=torch.int64), notes)

    def remarks(n):
        vectors = {f"trained kind{i} mean": torch.full((4, 2), float(i)) for i in range(n - 1)}
        of = table({**vectors, "pixels pixels -": torch.full((4, 2), 9.0)}, torch.arange(4) % 2)
        return probe_rows(of, replace(of), probe)[1]

    first = "trained · kind0 · mean, trained · kind1 · mean"
    assert remarks(3) == (f"{first}, raw pixels: an edge", f"{first}: slow")
    assert remarks(5) == ("all of 5 kinds of features: an edge", f"{first}: slow")


@pytest.mark.parametrize("evaluate", [evaluate_knn, evaluate_linear])
def test_end_to_end_beside_both_baselines(run, evaluate):
    result = evaluate(run, stripes_data(), workers=0, device="cpu")
    assert result.step == 6
    assert (result.n_train, result.n_test, result.classes) == (60, 30, ("rows", "columns", "none"))
    kinds = [(row.encoder, row.features, row.pool) for row in result.rows]
    networks = [
        (e, f, p) for e in ("trained", "untrained") for f in ("last", "fused") for p in ("cls", "mean")
    ]
    assert kinds == [*networks, ("pixels", "pixels", "-")]
    assert [row.encoder for row in result.rows if row.chosen] == ["trained", "untrained", "pixels"]
    assert result.chosen("trained").top1 > 0.6
    assert Score.read(score_file(result)) == result
    again = evaluate(run, stripes_data(), workers=0, device="cpu")
    assert replace(again, seconds=result.seconds) == result


def test_no_result_replaces_one_of_other_settings_or_seeds(tmp_path):
    toy_run(tmp_path / "run", toy_recipe(), steps=(3,))
    old = tmp_path / "run" / "results" / "knn-stripes.json"
    here = {"workers": 0, "device": "cpu"}
    layers, mean = FeatureOptions(features=("layers",)), FeatureOptions(pools=("mean",))
    data = stripes_data(30, 9)
    results = [
        evaluate_knn(tmp_path / "run", data, **here),
        evaluate_knn(tmp_path / "run", data, features=layers, **here),
        evaluate_knn(tmp_path / "run", data, options=KNNOptions(k=(3,)), **here),
        evaluate_linear(tmp_path / "run", data, features=mean, **here),
        evaluate_linear(tmp_path / "run", data, features=mean, seed=1, **here),
    ]
    assert [result.variant for result in results] == [
        "",
        "features layers",
        "k 3",
        "pools mean",
        "pools mean",
    ]
    files = [score_file(result) for result in results]
    assert len(set(files)) == 5
    assert [Score.read(file) for file in files] == results
    before = json.loads(files[0].read_text())  # as lamina kept it before it said so
    before["notes"] = ["an old one"]
    for name in ("variant", "content_sha256", "kind", "metric", "value", "interval", "more", "settings"):
        del before[name]
    del before["seconds"], before["confusion"]
    old.write_text(json.dumps(before))
    evaluate_knn(tmp_path / "run", data, **here)
    assert Score.read(old).notes == ("an old one",)
    os.utime(old, (0, 0))
    page = write_report([tmp_path / "run"], tmp_path / "run" / "report.html").read_text()
    for title in (
        "on stripes",
        "on stripes (features layers)",
        "on stripes (k 3)",
        "on stripes (pools mean)",
    ):
        assert f"{title}</h3>" in page
    assert "results/knn-stripes.json was left out" in page  # the same settings, and older
    assert re.search(r"last, mean \(chosen among \d\), mean of 2 seeds", page)
    means = [result.chosen().top1 for result in results[3:]]
    assert f"{50 * sum(means):.1f}\u202f%" in page


def test_an_earlier_step_does_not_hide_the_newest(tmp_path):
    run = tmp_path / "mff"
    toy_run(run, toy_recipe(), steps=(3, 6))
    for spec in (f"{run}@3", str(run)):
        evaluate_knn(spec, stripes_data(30, 9), workers=0, device="cpu")
    views = result_views(read_runs([run]))
    kinds = ("Nearest neighbours (kNN) on stripes", "Nearest neighbours (kNN) on stripes, step 3")
    assert [(view.title, view.shown[0][1].step) for view in views if view.title in kinds] == [
        ("Nearest neighbours (kNN) on stripes", 6),
        ("Nearest neighbours (kNN) on stripes, step 3", 3),
    ]


@pytest.mark.parametrize("others", [("a b", ""), ("a/b", "k 3"), ("a/b", "k-5")])
def test_names_that_differ_in_punctuation_alone_have_files_of_their_own(others, tmp_path):
    first = result_file(tmp_path, "knn", "a/b", "k 5" if others[1] else "", 0)
    first.write_text(json.dumps({"data": "a/b", "way": "k 5" if others[1] else ""}))
    second = result_file(tmp_path, "knn", *others, 0)
    assert second != first
    assert second == result_file(tmp_path, "knn", *others, 0)
    assert result_file(tmp_path, "knn", "a/b", "k 5" if others[1] else "", 0) == first


def test_baselines_may_be_left_out(run):
    """Their vectors are most of the memory."""
    alone = evaluate_knn(
        run, stripes_data(), features=FeatureOptions(baselines=False), workers=0, device="cpu"
    )
    beside = evaluate_knn(run, stripes_data(), workers=0, device="cpu")
    assert {row.encoder for row in alone.rows} == {"trained"}
    assert alone.chosen() == beside.chosen()


def test_an_earlier_step_has_a_file_of_its_own(run):
    result = evaluate_knn(f"{run}@3", stripes_data(), workers=0, device="cpu")
    assert result.step == 3
    assert (run / "results" / "knn-stripes-seed0@3.json").is_file()


def test_a_backbone_made_by_hand_has_no_untrained_twin_and_says_so(run):
    loaded = load_encoder(run)
    backbone = Backbone(loaded.encoder, loaded.fusion)
    result = evaluate_knn(backbone, stripes_data(), workers=0, device="cpu")
    assert {row.encoder for row in result.rows} == {"trained", "pixels"}
    assert "untrained" in result.notes[0]


def source(labels, classes):
    n = 3 if labels is None else len(labels)
    return ArraySource(
        torch.zeros(n, 3, 32, 48, dtype=torch.uint8), [str(i) for i in range(n)], labels, classes
    )


@pytest.mark.parametrize(
    ("train", "test", "sentence"),
    [
        ((None, ()), ([0, 1], "ab"), "no classes"),
        (([0, 1], "ab"), (None, ()), "no classes"),
        (([0, 0], "ab"), ([0, 1], "ab"), "two or more"),
        (([0, 1], "abc"), ([0, 2], "abc"), "class 'c'"),
        (([0, 1], "ab"), ([0, 1], "ac"), "'c' of mine is missing among the training images"),
        (([0, 1], "ab"), ([0, 1], "ba"), "differ"),
    ],
)
def test_data_that_cannot_be_judged_get_one_line(train, test, sentence):
    with pytest.raises(LaminaError, match=sentence) as caught:
        LabelledData("mine", source(*train), source(*test))
    assert "\n" not in str(caught.value)


def test_a_folder_of_one_class_is_refused(tmp_path):
    from PIL import Image

    for part in ("train", "val"):
        (tmp_path / part / "only").mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / part / "only" / f"{i}.png")
    with pytest.raises(LaminaError, match="no classes, or one alone"):
        open_labelled(tmp_path)


def test_images_that_cannot_be_read_are_left_out_and_counted(tmp_path, run):
    from PIL import Image

    for c in ("a", "b"):
        (tmp_path / c).mkdir()
        for i in range(10):
            Image.effect_noise((48, 32), 50 + 100 * (c == "a")).convert("RGB").save(tmp_path / c / f"{i}.png")
    (tmp_path / "a" / "broken.png").write_bytes(b"no image")
    result = evaluate_knn(run, tmp_path, options=KNNOptions(k=(1,)), workers=0, device="cpu")
    assert result.n_train + result.n_test == 20
    assert len(result.notes) == 1
    assert "1 " in result.notes[0]


def test_a_device_that_is_not_there(run):
    with pytest.raises(LaminaError, match="quantum"):
        evaluate_knn(run, stripes_data(), workers=0, device="quantum")


def test_a_result_that_cannot_be_kept_is_returned_with_a_note(tmp_path):
    toy_run(tmp_path / "run", toy_recipe())
    (tmp_path / "run" / "results").write_text("in the way of the folder")
    result = evaluate_knn(tmp_path / "run", stripes_data(), workers=0, device="cpu")
    assert result.chosen().top1 > 0
    assert [note for note in result.notes if "not kept" in note and "knn-stripes-seed0.json" in note]
