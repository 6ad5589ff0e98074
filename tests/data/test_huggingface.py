"""Datasets of Hugging Face: the same images, classes and digests as in a folder, by row, in memory-mapped tables."""

from __future__ import annotations

import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import lamina
from helpers.archives import png, two_parts
from helpers.options import TINY_NETWORK, as_read
from helpers.training import check_resumes
from lamina.cli import main
from lamina.core.errors import LaminaError
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.huggingface import splits
from lamina.data.loading.loader import TrainLoader
from lamina.data.open import held_out, open_source
from lamina.data.options import DataOptions
from lamina.data.pack.write import pack
from lamina.data.sources import images_digest

datasets = pytest.importorskip("datasets", reason="datasets is not installed (extra: hf)")
CLASSES = ("cats", "dogs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_parts(tmp_path_factory.mktemp("photos"), "png", ("train", "test"))


def rows_of(part: Path) -> dict[str, list[Any]]:
    files = sorted(part.glob("*/*.png"))
    return {
        "image": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
        "label": [CLASSES.index(file.parent.name) for file in files],
    }


def table(rows: dict[str, list[Any]], **types: Any) -> Any:
    known = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))} | types
    return datasets.Dataset.from_dict(rows, features=datasets.Features({name: known[name] for name in rows}))


@pytest.fixture(scope="module")
def saved(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images as `DatasetDict.save_to_disk` writes them, in the order of the folder."""
    root = tmp_path_factory.mktemp("saved")
    datasets.disable_progress_bars()
    parts = {name: table(rows_of(folder / name)) for name in ("train", "test")}
    datasets.DatasetDict(parts).save_to_disk(str(root / "both"))
    parts["train"].save_to_disk(str(root / "train"))
    clone = root / "clone"
    for name, part in parts.items():
        (clone / "data").mkdir(parents=True, exist_ok=True)
        part.to_parquet(str(clone / "data" / f"{name}-00000-of-00001.parquet"))
    files = [{"split": name, "path": f"data/{name}-*"} for name in parts]
    card = {"configs": [{"config_name": "default", "data_files": files}]}
    (clone / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n# Photographs\n")
    return root


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def hub(saved: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A hub with one dataset; the commit that its branches are at can be changed."""
    commits = {"": "a" * 40}
    of_folder = splits.find_builder

    def find(named: Any) -> Any:
        if named.is_folder:
            return of_folder(named)
        if named.place != "some/photos":
            raise ConnectionError(f"Couldn't reach '{named.place}' on the Hub")
        builder = datasets.load_dataset_builder(str(saved / "clone"), name=named.options.config or None)
        builder.hash = commits.get(named.revision, named.revision)
        return builder

    monkeypatch.setattr(splits, "find_builder", find)
    return commits


# The same images as in a folder


@pytest.mark.parametrize("kind", ["both", "clone", "hub"])
@pytest.mark.parametrize("split", [None, "train", "val", "all"])
def test_a_dataset_is_the_folder_that_it_was_made_of(split, kind, folder, saved, hub):
    data = "hf:some/photos" if kind == "hub" else str(saved / kind)
    own, of_folder = open_source(data, split), open_source(str(folder), split)
    order = sorted(range(len(own)), key=own.name) if split == "all" else range(len(own))
    assert [own.name(i) for i in order] == [of_folder.name(i) for i in range(len(of_folder))]
    assert [own.labels[i] for i in order] == of_folder.labels
    assert own.class_names == of_folder.class_names
    assert all(torch.equal(own.read(i), of_folder.read(k)) for k, i in enumerate(order))
    if split != "all":
        assert images_digest(own) == images_digest(of_folder)
    assert held_out(data) == "val"


def test_one_table_is_the_folder_of_one_part(folder, saved):
    for split in (None, "train", "val", "all"):
        own, of_folder = open_source(saved / "train", split), open_source(folder / "train", split)
        assert images_digest(own) == images_digest(of_folder)
        assert len(own) == len(of_folder)
    assert held_out(str(saved / "train")) == "all"
    named = open_source(f"hf:{saved / 'both'}?split=train")
    assert images_digest(named) == images_digest(open_source(folder / "train"))
    assert len(open_source(f"{saved / 'both'}?split=train+test", "all")) == 20
    assert held_out(f"{saved / 'both'}?split=train") == "all"


@pytest.mark.parametrize("workers", ["none", "fork", "spawn"])
def test_batches_are_those_of_the_files(workers, folder, saved):
    def batches(data: Any) -> list[torch.Tensor]:
        options = DataOptions(workers={"none": 0, "fork": 2, "spawn": 1}[workers])
        loader = TrainLoader(open_source(data), options, 3, 4, image_size=(16, 16), in_chans=3)
        return [batch.images for batch in loader.batches(2, 5)]

    before = torch.multiprocessing.get_start_method(allow_none=True)
    torch.multiprocessing.set_start_method("spawn" if workers == "spawn" else "fork", force=True)
    try:
        own = batches(str(saved / "both"))
    finally:
        torch.multiprocessing.set_start_method(before, force=True)
    assert all(map(torch.equal, own, batches(str(folder))))


def test_a_worker_gets_paths_and_not_pixels(saved):
    source = open_source(saved / "both")
    content = pickle.dumps(source)
    assert len(content) < len(source.open(0).read())
    assert torch.equal(pickle.loads(content).read(3), source.read(3))  # noqa: S301


def test_a_changed_image_is_another_image(folder, saved, tmp_path):
    rows = rows_of(folder / "train")
    same, size = table(rows), len(rows["image"][7]["bytes"])
    same.save_to_disk(str(tmp_path / "same"))
    rows["image"][7] = {"bytes": bytes(size), "path": rows["image"][7]["path"]}
    table(rows).save_to_disk(str(tmp_path / "other"))
    own, same, other = (open_source(p) for p in (saved / "train", tmp_path / "same", tmp_path / "other"))
    assert images_digest(own) == images_digest(same) != images_digest(other)
    assert own.identity() == open_source(saved / "train").identity() != same.identity()


# Columns


def opened(path: Path, rows: dict[str, list[Any]], query: str = "", **types: Any) -> Any:
    table(rows, **types).save_to_disk(str(path))
    return open_source(f"{path}{query}")


BYTES = [png(i) for i in range(4)]
AS_IMAGES = [{"bytes": content, "path": None} for content in BYTES]


def test_images_without_names_have_the_number_of_their_row(tmp_path):
    source = opened(tmp_path / "a", {"image": AS_IMAGES * 3, "label": [0, 1, 1, 0] * 3})
    assert [source.name(0), source.name(11)] == ["00", "11"]
    same = [{"bytes": content, "path": "x.png"} for content in BYTES]
    assert opened(tmp_path / "b", {"image": same, "label": [0, 1, 1, 0]}).name(3) == "3"


@pytest.mark.parametrize("kind", ["binary", "large_binary", "struct", "string"])
def test_bytes_and_paths_without_a_type_are_images(kind, tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(4)]
    for file, content in zip(files, BYTES, strict=True):
        file.write_bytes(content)
    binary, text = datasets.Value("binary"), datasets.Value("string")
    values = {"string": [str(file) for file in files], "struct": AS_IMAGES}.get(kind, BYTES)
    feature = {"string": text, "struct": {"bytes": binary, "path": text}}.get(kind) or datasets.Value(kind)
    source = opened(
        tmp_path / "a", {"picture": values}, "" if kind == "struct" else "?image=picture", picture=feature
    )
    assert all(torch.equal(source.read(i), open_source(file).read(0)) for i, file in enumerate(files))
    assert source.content(range(4)) == open_source(list(map(str, files))).content(range(4))
    assert source.fingerprint(range(4)) != source.fingerprint(range(3))


def test_a_row_that_is_damaged_or_empty_is_one_unreadable_image(tmp_path):
    images = [AS_IMAGES[0], None, {"bytes": b"", "path": None}, {"bytes": b"no image", "path": None},
              {"bytes": None, "path": str(tmp_path / "gone.png")}, AS_IMAGES[1]]  # fmt: skip
    kinds = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    source = opened(tmp_path / "a", {"image": images}, image=kinds)
    reasons = (Reason.MISSING, Reason.EMPTY, Reason.UNKNOWN_FORMAT, Reason.MISSING)
    for i, reason in enumerate(reasons, 1):
        with pytest.raises(Unreadable) as error:
            source.read(i)
        assert error.value.reason == reason
    assert source.read(5).shape == (3, 24, 36)
    assert source.content(range(6)) != source.content(range(5))


@pytest.mark.parametrize(
    ("values", "feature", "query", "labels", "names"),
    [
        ([2, 0, 2, 0], "ClassLabel", "", [2, 0, 2, 0], ("a", "b", "c")),
        ([10, 9, 9, 10], "int64", "?label=species", [1, 0, 0, 1], ("9", "10")),
        (["owl", "ant", "owl", "bee"], "string", "?label=species", [2, 0, 2, 1], ("ant", "bee", "owl")),
        ([True, False, True, True], "bool", "?label=species", [1, 0, 1, 1], ("False", "True")),
    ],
)
def test_classes_by_type_and_by_name(values, feature, query, labels, names, tmp_path):
    kind = datasets.ClassLabel(names=["a", "b", "c"]) if feature == "ClassLabel" else datasets.Value(feature)
    source = opened(tmp_path / "a", {"image": AS_IMAGES, "species": values}, query, species=kind)
    assert (source.labels, source.class_names) == (labels, names)


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({}, "no column of type ClassLabel"),
        ({"fine": [0, 1, 0, 1], "coarse": [0, 0, 1, 1]}, "several columns of classes, fine, coarse"),
        ({"label": [0, 1, -1, 0]}, "1 of 4 images have no class"),
        ({"label": [0, None, None, 0]}, "2 of 4 images have no class"),
    ],
)
def test_why_there_are_no_classes(columns, why, tmp_path):
    kinds = {name: datasets.ClassLabel(names=["a", "b"]) for name in columns}
    source = opened(tmp_path / "a", {"image": AS_IMAGES, **columns}, **kinds)
    assert source.labels is None
    assert why in source.no_labels


def test_classes_of_texts_have_one_number_in_all_parts(tmp_path):
    kind = datasets.Value("string")
    parts = {
        "train": table({"image": AS_IMAGES, "kind": ["d", "b", "d", "b"]}, kind=kind),
        "validation": table({"image": AS_IMAGES[:2], "kind": ["c", "d"]}, kind=kind),
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "a"))
    for split, labels in (("train", [2, 0, 2, 0]), ("val", [1, 2])):
        source = open_source(f"{tmp_path / 'a'}?label=kind", split)
        assert (source.labels, source.class_names) == (labels, ("b", "c", "d"))


# Splits


def of_splits(path: Path, *names: str) -> str:
    parts = {name: table({"image": AS_IMAGES[: k + 1]}) for k, name in enumerate(names)}
    datasets.DatasetDict(parts).save_to_disk(str(path))
    return str(path)


@pytest.mark.parametrize(
    ("names", "train", "val", "note"),
    [
        (("train", "validation", "test"), 1, 2, "not used: test (3 images)"),
        (("test", "train"), 2, 1, ""),
        (("train", "unsupervised"), 1, None, "not used: unsupervised (2 images)"),
        (("en", "de"), 3, None, ""),
        (("full",), 1, None, ""),
    ],
)
def test_parts_are_told_by_the_names_of_the_splits(names, train, val, note, tmp_path):
    data = of_splits(tmp_path / "a", *names)
    assert len(open_source(data)) == train
    assert held_out(data) == ("all" if val is None else "val")
    if val is not None:
        assert len(open_source(data, "val")) == val
    assert note in " ".join(open_source(data).notes)


@pytest.mark.parametrize("kind", ["ClassLabel", "string"])
def test_a_split_without_classes_changes_no_name_of_another(kind, folder, tmp_path):
    """As many test splits on the hub: -1, or an empty text. The names are those of a folder in which the test
    images lie without class folders, whatever is opened; so that it can be packed."""
    train, test = rows_of(folder / "train"), rows_of(folder / "test")
    for i, image in enumerate(test["image"]):
        image["path"] = f"{i}.png"
    test["label"], types = [-1] * 10, {}
    if kind == "string":
        train["label"], types = [CLASSES[i] for i in train["label"]], {"label": datasets.Value("string")}
        test["label"] = [""] * 10
    parts = {"train": table(train, **types), "test": table(test, **types)}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "a"))
    data = f"{tmp_path / 'a'}?label=label"
    of_train = [f"train/{path.parent.name}/{path.name}" for path in sorted((folder / "train").glob("*/*"))]
    expected = {"train": of_train, "val": [f"test/{i}.png" for i in range(10)]}
    expected |= {None: of_train, "all": [*of_train, *expected["val"]]}
    pack(data, tmp_path / "p", workers=0)
    for split, names in expected.items():
        for source in (open_source(data, split), open_source(str(tmp_path / "p"), split)):
            assert [source.name(i) for i in range(len(source))] == names
            assert (source.labels is None) == (split in ("val", "all"))


# What cannot be opened


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("hf:some/other", "Couldn't reach 'some/other' on the Hub; without a network"),
        ("hf:some/photos?split=dev", "no split 'dev'; it has train, test"),
        ("hf:some/photos?image=label", "values of ClassLabel"),
        ("hf:some/photos?image=img", "no column 'img' for image=; it has image, label"),
        ("hf:some/photos?label=kind", "no column 'kind' for label="),
        ("hf:some/photos?label=image", "classes are of type"),
        ("hf:some/photos?config=large", "BuilderConfig 'large' not found"),
        ("hf:some/photos?most=3", "no parameter 'most'; take config, image, label, split"),
        ("hf:a b", "no name of a dataset"),
        ("hf:", "no name of a dataset"),
        ("hf:a/b/c", "no name of a dataset"),
    ],
)
def test_what_is_not_there_is_one_line(data, words, hub, capsys):
    assert main(["data", "check", data]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert len(said.err.strip().splitlines()) == 1


def test_columns_that_do_not_fit_are_refused_in_one_line(saved, tmp_path):
    two = {"image": AS_IMAGES, "mask": AS_IMAGES}
    for path, rows, words in (("a", two, "several columns of images: image, mask"),
                              ("b", {"text": ["x"]}, "no column of type Image, but text")):  # fmt: skip
        with pytest.raises(LaminaError, match=words):
            opened(tmp_path / path, rows, mask=datasets.Image(), text=datasets.Value("string"))
    with pytest.raises(LaminaError, match="one table without splits"):
        open_source(f"{saved / 'train'}?split=train")
    with pytest.raises(LaminaError, match="has no configurations; leave config="):
        open_source(f"{saved / 'both'}?config=large")
    with pytest.raises(LaminaError, match="held-out split alone, test; add \\?split=test"):
        open_source(of_splits(tmp_path / "c", "test"))
    (saved / "train" / "state.json").rename(tmp_path / "state.json")
    (saved / "train" / "state.json").write_text("{")
    try:
        with pytest.raises(LaminaError, match="cannot open"):
            open_source(saved / "train")
    finally:
        (tmp_path / "state.json").replace(saved / "train" / "state.json")


@pytest.mark.parametrize("kind", ["both", "clone"])
@pytest.mark.parametrize("damage", ["cut off", "no such file", "garbage", "empty"])
def test_damaged_files_are_one_line(damage, kind, saved, tmp_path, capsys):
    data = shutil.copytree(saved / kind, tmp_path / "data")
    file = next(data.rglob("*.arrow" if kind == "both" else "train*.parquet"))
    content = file.read_bytes()
    file.unlink()
    if damage != "no such file":
        file.write_bytes(
            {"cut off": content[: len(content) // 2], "garbage": b"x" * 999, "empty": b""}[damage]
        )
    capsys.readouterr()
    assert main(["data", "check", str(data)]) == 2
    said = capsys.readouterr().err
    assert "cannot open" in said
    assert len(said.strip().splitlines()) == 1


def test_without_the_package_the_extra_is_named(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    for data in ("hf:some/photos", str(saved / "both")):
        with pytest.raises(LaminaError, match=r"pip install 'lamina\[hf\]'"):
            open_source(data)


def test_a_copy_of_another_revision_is_not_taken(hub):
    hub["c" * 40] = "a" * 40  # what `datasets` does without a network
    with pytest.raises(LaminaError, match="the copy on this machine is of revision aaa"):
        open_source(f"hf:some/photos@{'c' * 40}")


@pytest.mark.parametrize(
    "card", ["", "# a text", "---\nlicense: mit\n---\n", "---\n[\n---\n", "---\nconfigs"]
)
def test_a_folder_with_another_text_is_a_folder(card, folder, tmp_path):
    (tmp_path / "README.md").write_text(card)
    (tmp_path / "a.parquet").write_bytes(b"")
    (tmp_path / "a.png").write_bytes(png(0))
    assert open_source(tmp_path).name(0) == "a.png"


# Runs


def test_a_run_knows_its_revision_and_goes_on(hub, tmp_path):
    settings = {"image_size": 16, "patch_size": 4, "batch_size": 4, "workers": 0, "max_steps": 4}
    fixed = TINY_NETWORK | {"train.keep_checkpoints": 9, "train.checkpoint_every_steps": 1}
    options = as_read("mae-small", fixed, None)
    run = tmp_path / "run"
    lamina.pretrain("hf:some/photos", run, "mae-small", **settings, options=options)
    known = yaml.safe_load((run / "recipe.yaml").read_text())
    assert known["source"] == "hf:some/photos"
    assert known["version"]["revision"] == "a" * 40
    assert known["version"]["fingerprint"]
    check_resumes(run, 4, lambda path: lamina.pretrain("hf:some/photos", path, resume=True), at=(2,))
    hub[""] = "b" * 40
    with pytest.raises(LaminaError, match=f"revision {'a' * 40} of hf:some/photos, and now it is at bbb"):
        lamina.pretrain("hf:some/photos", run, resume=True)
    lamina.pretrain(f"hf:some/photos@{'a' * 40}", run, resume=True)


def test_a_run_says_that_its_dataset_was_written_again(folder, tmp_path, capsys):
    settings = {"image_size": 16, "patch_size": 4, "batch_size": 4, "workers": 0, "max_steps": 1}
    rows = rows_of(folder / "train")
    table(rows).save_to_disk(str(tmp_path / "a"))
    options = as_read("mae-small", TINY_NETWORK, None)
    lamina.pretrain(tmp_path / "a", tmp_path / "run", "mae-small", **settings, options=options)
    lamina.pretrain(tmp_path / "a", tmp_path / "run", resume=True)
    assert "written again" not in capsys.readouterr().out
    table({**rows, "label": rows["label"][::-1]}).select(range(9, -1, -1)).save_to_disk(str(tmp_path / "b"))
    with pytest.raises(LaminaError, match="not the same"):
        lamina.pretrain(tmp_path / "b", tmp_path / "run", resume=True)
    datasets.load_from_disk(str(tmp_path / "a")).save_to_disk(str(tmp_path / "c"))
    lamina.pretrain(tmp_path / "c", tmp_path / "run", resume=True)
    assert "the dataset was written again" in capsys.readouterr().out
