"""Tables of images: the same images as in a folder, their columns, parts and labels; tables that are none."""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.archives import png, two_parts
from lamina.core.errors import LaminaError
from lamina.data.check import check
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.loading.loader import TrainLoader
from lamina.data.open import held_out, open_source
from lamina.data.options import DataOptions
from lamina.data.sources import Source, images_digest
from lamina.data.tables import stored


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_parts(tmp_path_factory.mktemp("photos"), "png")


def rows_of(folder: Path) -> list[tuple[str, str, str]]:
    """Path, class and part of each image, in the order of a folder."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    return [(name, name.split("/")[1], name.split("/")[0]) for name in names]


def write_csv(file: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], **form: Any) -> str:
    with open(file, "w", newline="") as opened:
        writer = csv.writer(opened, **form)
        writer.writerows([header, *rows])
    return str(file)


def write_parquet(file: Path, columns: dict[str, Any], rows: int = 3, about: object = None) -> str:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra: table)")
    import pyarrow.parquet as pq

    table = pa.table(columns)
    if about is not None:
        table = table.replace_schema_metadata({b"huggingface": json.dumps(about).encode()})
    pq.write_table(table, file, row_group_size=rows)
    return str(file)


def of_csv(folder: Path, into: Path) -> str:
    return (
        write_csv(into / "t.csv", ("file", "species", "split"), rows_of(folder))
        + f"?label=species&root={folder}"
    )


def of_paths(folder: Path, into: Path) -> str:
    names, classes, parts = zip(*rows_of(folder), strict=True)
    file = write_parquet(into / "t.parquet", {"img": names, "label": classes, "split": parts})
    return f"{file}?root={folder}"


def of_bytes(folder: Path, into: Path) -> str:
    names, classes, parts = zip(*rows_of(folder), strict=True)
    images = [(folder / name).read_bytes() for name in names]
    return write_parquet(into / "t.parquet", {"photo": images, "label": classes, "part": parts})


def of_structs(folder: Path, into: Path) -> str:
    """As Hugging Face's `push_to_hub` writes it: shards by part, {bytes, path}, the names of the classes."""
    feature = {"_type": "ClassLabel", "names": ["cats", "dogs"]}
    about = {"info": {"features": {"image": {"_type": "Image"}, "species": feature}}}
    for part in ("train", "test"):
        rows = [row for row in rows_of(folder) if (row[2] == "val") == (part == "test")]
        images = [{"bytes": (folder / row[0]).read_bytes(), "path": row[0]} for row in rows]
        for shard in range(2):
            columns = {
                "image": images[5 * shard : 5 * shard + 5],
                "species": [("cats", "dogs").index(row[1]) for row in rows][5 * shard : 5 * shard + 5],
            }
            (into / "data").mkdir(exist_ok=True)
            write_parquet(into / "data" / f"{part}-0000{shard}-of-00002.parquet", columns, about=about)
    return str(into / "data")


TABLES: list[Callable[[Path, Path], str]] = [of_csv, of_paths, of_bytes, of_structs]


def equal(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> bool:
    return len(one) == len(other) > 0 and all(map(torch.equal, one, other))


def all_of(source: Source) -> list[torch.Tensor]:
    return [source.read(i) for i in range(len(source))]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("split", [None, "train", "val"])
def test_a_table_is_the_folder_that_it_was_made_of(table, split, folder, tmp_path):
    spec = table(folder, tmp_path)
    own, of_folder = open_source(spec, split), open_source(str(folder), split)
    assert (list(own.labels), own.class_names) == (list(of_folder.labels), of_folder.class_names)
    assert equal(all_of(own), all_of(of_folder))
    assert held_out(spec) == "val"
    assert own.notes == ("the training part has 10 images, the held-out part 10",)
    if table is not of_bytes:
        assert [own.name(i) for i in range(len(own))] == [of_folder.name(i) for i in range(len(of_folder))]
    if table in (of_csv, of_paths):
        assert images_digest(own) == images_digest(of_folder)
        assert own.identity() == of_folder.identity()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("table", [of_csv, of_bytes])
def test_batches_are_those_of_the_folder_from_any_step_on(table, workers, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "KEPT_BYTES", 30_000)  # one row group, or two

    def batches(data: str, first: int, rank: int = 0, world: int = 1) -> list[torch.Tensor]:
        options = DataOptions(workers=workers)
        source = open_source(data)
        loader = TrainLoader(source, options, 3, 4, rank, world, image_size=(16, 16), in_chans=3)
        return [batch.images for batch in loader.batches(first, 4)]

    spec = table(folder, tmp_path)
    from_table = batches(spec, 0)
    assert equal(from_table, batches(str(folder), 0))
    assert equal(from_table[2:], batches(spec, 2))
    ranks = [batches(spec, 1, rank, 2) for rank in range(2)]
    together = [torch.cat(parts) for parts in zip(*ranks, strict=True)]
    assert {tuple(image.flatten().tolist()) for batch in together for image in batch} == {
        tuple(image.flatten().tolist()) for batch in from_table[1:] for image in batch
    }


def test_what_a_path_says_of_reading_goes_beside_the_columns(tmp_path):
    """The scale of the path, and the columns of the table."""
    values = np.arange(24, dtype=np.uint16).reshape(4, 6) * 20
    np.save(tmp_path / "a.npy", values)
    file = write_csv(tmp_path / "t.csv", ("file", "y"), [("a.npy", 1), ("a.npy", 1)])
    source = open_source(f"{file}?label=y&scale=0:460&image=file")
    torch.testing.assert_close(source.read(0)[0], torch.from_numpy(values / 460).float())


@pytest.mark.parametrize("rows", [1, 4, 20])
@pytest.mark.parametrize("kept", [0, 20_000, 1 << 20])
def test_rows_are_found_whatever_is_kept_of_row_groups(rows, kept, tmp_path, monkeypatch):
    """The bytes of each row are those that were written, in any order; what is kept stays below the limit."""
    monkeypatch.setattr(stored, "KEPT_BYTES", kept)
    images = [png(i) for i in range(20)]
    source = open_source(write_parquet(tmp_path / "t.parquet", {"image": images}, rows))
    for i in np.random.default_rng(0).permutation(20).tolist():
        assert source.open(i).read() == images[i]
    held, largest = source.groups._kept, source.groups.largest_bytes
    assert sum(int(source.groups._groups[place, 3]) for place in held) <= kept
    assert len(held) == min(kept // largest, 20 // rows)  # the groups are of one size
    assert not pickle.loads(pickle.dumps(source)).groups._kept  # noqa: S301  what a worker gets
    assert bool(source.notes) == (source.groups.largest_bytes > kept)


def test_images_in_a_table_are_known_again_by_its_file_and_their_rows(tmp_path):
    images = {"image": [png(i) for i in range(4)]}
    source = open_source(file := write_parquet(tmp_path / "a.parquet", images))
    copy = open_source(shutil.copy2(file, tmp_path / "b.parquet"))
    orders = ([0, 1, 2, 3], [1, 0, 2, 3], [0, 1])
    for known in (source.fingerprint, source.content):
        assert len({known(order) for order in orders}) == len(orders)
    contents = list(map(source.content, orders))
    assert contents == list(map(copy.content, orders))
    before = source.fingerprint(orders[0])
    assert before != copy.fingerprint(orders[0])
    os.utime(file, (1, 1))
    assert before != source.fingerprint(orders[0])
    assert contents == list(map(source.content, orders))


def test_the_check_reads_every_row_and_counts_classes(folder, tmp_path):
    for table in (of_csv, of_bytes):
        found = check(open_source(table(folder, tmp_path), "all"), DataOptions(workers=0))
        assert found.ok
        assert (found.n_files, found.classes) == (20, {"cats": 10, "dogs": 10})


# Columns


def opened(tmp_path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], query: str = "") -> Source:
    for row in rows:
        for cell in row:
            if str(cell).endswith(".png"):
                (tmp_path / str(cell)).write_bytes(png(0))
    return open_source(write_csv(tmp_path / "t.csv", header, rows) + query)


def test_numbers_are_classes_in_their_order(tmp_path):
    source = opened(tmp_path, ("file", "label"), [("a.png", 10), ("b.png", 9), ("c.png", 10)])
    assert (source.class_names, list(source.labels)) == (("9", "10"), [1, 0, 1])
    floats = {"image": [png(0)] * 3, "label": [10.0, 9.0, 9.5]}
    source = open_source(write_parquet(tmp_path / "t.parquet", floats))
    assert (source.class_names, list(source.labels)) == (("9", "9.5", "10"), [2, 0, 1])
    source = opened(tmp_path, ("file", "label"), [("a.png", 10), ("b.png", "9a"), ("c.png", 10)])
    assert (source.class_names, list(source.labels)) == (("10", "9a"), [0, 1, 0])


def test_columns_are_found_by_what_they_hold_and_by_their_usual_names(tmp_path):
    rows = [("a.png", "x.png", 1), ("b.png", "y.png", 2)]
    source = opened(tmp_path, ("image", "thumbnail", "Label"), rows)
    assert (source.name(0), source.class_names) == ("a.png", ("1", "2"))
    source = opened(tmp_path, ("image", "thumbnail", "Label"), rows, "?image=thumbnail&label=")
    assert (source.name(0), source.labels) == ("x.png", None)
    (tmp_path / "7.png").write_bytes(png(0))
    source = opened(tmp_path, ("id", "breed"), [("7", "pug")], "?image=id&ending=.png")
    assert source.name(0) == "7.png"
    assert source.no_labels == f"no column is called label; say which it is: {tmp_path / 't.csv'}?label=breed"
    source = opened(tmp_path, ("file", "label", "class"), [("a.png", 1, "a"), ("b.png", 2, "b")])
    assert source.no_labels.startswith("label and class may each be the labels; say which")


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("file;label\na.png;1\nb.png;2\n", 2),
        ("file\tlabel\na.png\t1\nb.png\t2\n", 2),
        ("\ufefffile, label\r\na.png, 1\r\n\r\nb.png, 2\r\n", 2),
        ('file,label\n"a.png","1"\n"b.png",2', 2),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_texts_as_spreadsheets_write_them(content, rows, encoding, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png(0))
    (tmp_path / "t.CSV").write_bytes(content.removeprefix("\ufeff" * (encoding == "utf-16")).encode(encoding))
    source = open_source(str(tmp_path / "t.CSV"))
    assert (len(source), source.class_names, list(source.labels)) == (rows, ("1", "2"), [0, 1])


def test_a_path_with_a_question_mark_is_opened(tmp_path):
    (tmp_path / "a.png").write_bytes(png(0))
    file = write_csv(tmp_path / "t.csv?label=x.csv", ("file", "y"), [("a.png", 1)])
    assert open_source(file).name(0) == "a.png"
    assert open_source(file + "?label=").no_labels == "?label= says that there are none"


def test_a_table_of_paths_needs_no_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    assert len(opened(tmp_path, ("file",), [("a.png",)])) == 1
    (tmp_path / "t.parquet").write_bytes(b"")
    with pytest.raises(LaminaError, match=r"need pyarrow; pip install 'lamina\[table\]'"):
        open_source(str(tmp_path / "t.parquet"))


# Several labels each


SEVERAL = [("a.png", [1, 0, 1]), ("b.png", [0, 0, 0]), ("c.png", [0, 1, 1])]


def of_columns(into: Path) -> str:
    rows = [(name, *flags) for name, flags in SEVERAL]
    return write_csv(into / "t.csv", ("file", "sea", "sky", "tree"), rows) + "?label=sea,sky,tree"


def of_minus_one(into: Path) -> str:
    """As in CelebA's list of attributes."""
    rows = [(name, *(2 * flag - 1 for flag in flags)) for name, flags in SEVERAL]
    return write_csv(into / "t.csv", ("file", "sea", "sky", "tree"), rows) + "?label=sea,sky,tree"


def tags() -> list[list[str]]:
    return [
        [tag for tag, flag in zip(("sea", "sky", "tree"), flags, strict=True) if flag] for _, flags in SEVERAL
    ]


def of_separator(into: Path) -> str:
    rows = [(name, " | ".join(each)) for (name, _), each in zip(SEVERAL, tags(), strict=True)]
    return write_csv(into / "t.csv", ("file", "tags"), rows) + "?label=tags&separator=|"


def of_truths(into: Path) -> str:
    columns = {"file": [name for name, _ in SEVERAL]}
    columns |= {tag: [bool(flags[i]) for _, flags in SEVERAL] for i, tag in enumerate(("sea", "sky", "tree"))}
    return write_parquet(into / "t.parquet", columns) + "?label=sea,sky,tree"


def of_lists(into: Path) -> str:
    return write_parquet(into / "t.parquet", {"file": [name for name, _ in SEVERAL], "labels": tags()})


def of_class_lists(into: Path) -> str:
    feature = {"_type": "List", "feature": {"_type": "ClassLabel", "names": ["sea", "sky", "tree"]}}
    numbers = [[i for i, flag in enumerate(flags) if flag] for _, flags in SEVERAL]
    columns = {"file": [name for name, _ in SEVERAL], "what": numbers}
    return write_parquet(into / "t.parquet", columns, about={"info": {"features": {"what": feature}}})


@pytest.mark.parametrize(
    "table", [of_columns, of_minus_one, of_separator, of_truths, of_lists, of_class_lists]
)
def test_several_labels_of_an_image_however_a_table_has_them(table, tmp_path):
    for name, _ in SEVERAL:
        (tmp_path / name).write_bytes(png(0))
    spec = table(tmp_path)
    source = open_source(spec)
    assert source.class_names == ("sea", "sky", "tree")
    assert source.multi_labels.astype(int).tolist() == [flags for _, flags in SEVERAL]
    assert source.labels is None
    assert source.notes == (f"1 of 3 images of {spec.partition('?')[0]} has none of the labels",)
    parts = {part: open_source(spec, part) for part in ("train", "val")}
    found = {s.name(i): s.multi_labels[i].astype(int).tolist() for s in parts.values() for i in range(len(s))}
    assert found == dict(SEVERAL)
    scaled = open_source(f"{spec}{'&' if '?' in spec else '?'}scale=0:100")
    assert np.array_equal(scaled.multi_labels, source.multi_labels)


def test_rows_that_do_not_say_all_labels_have_none(tmp_path):
    rows = [("a.png", 1, 0), ("b.png", "", 1), ("c.png", 0, 1), ("d.png", 1, 1)]
    source = opened(tmp_path, ("file", "a", "b"), rows, "?label=a,b")
    assert (source.multi_labels, source.no_labels) == (
        None,
        f"1 of 4 images of {tmp_path / 't.csv'} has no label",
    )
    parts = [open_source(f"{tmp_path / 't.csv'}?label=a,b", split) for split in ("train", "val")]
    assert sorted(p.name(i) for p in parts for i in range(len(p))) == ["a.png", "c.png", "d.png"]


# Rows that are no images, or have no label


def test_what_is_left_out_is_said_with_its_number(tmp_path):
    rows = [("a.png", 1), ("b.png", 2), ("./a.png", 1), ("", 1), ("gone.jpg", 2), ("c.png", ""), ("d.png", 1)]
    source = opened(tmp_path, ("file", "label"), rows)
    table = tmp_path / "t.csv"
    said = (
        f"1 row of {table} without a path is left out",
        f"1 row of {table} with a file of another row is left out",
        f"1 of 5 files that {table} names is not there and is left out, such as gone.jpg",
    )
    assert source.notes == said
    assert [source.name(i) for i in range(4)] == ["a.png", "b.png", "c.png", "d.png"]
    assert (source.labels, source.no_labels) == (None, f"1 of 4 images of {table} has no label")
    parts = [open_source(str(table), split) for split in ("train", "val")]
    assert sorted(p.name(i) for p in parts for i in range(len(p))) == ["a.png", "b.png", "d.png"]
    assert parts[0].notes == (*said, f"1 of 4 images of {table} has no label and is left out")


@pytest.mark.parametrize(
    ("header", "rows", "query", "words"),
    [
        (("file", "label"), [("a.png", 1), ("a.png", 2)], "", "1 row of .* differs in label from another row"),
        (("file", "split"), [("a.png", "train"), ("./a.png", "val")], "", "differs in split"),
        (("file",), [("gone.jpg",), ("away.jpg",)], "", "none of the 2 files .* gone.jpg; say where .*root="),
        (("a", "b"), [("x.png", "y.png")], "", "columns a and b of .* hold images; say which: \\?image=a"),
        (("a", "b"), [("x", "y")], "", "no column of .* its columns are a and b; name one"),
        (("file", "species"), [("a.png", 1)], "?label=spices", "no column 'spices'; .*species"),
        (("file", "species"), [("a.png", 1)], "?image=files", "no column 'files'"),
        (("file", "species"), [("a.png", 1)], "?lable=species", "no parameter 'lable'; take"),
        (("file", "fold"), [("a.png", 1), ("b.png", 2)], "?part=fold", "holds 1, 2, which do not name"),
        (("a.png", "1"), [("b.png", 2)], "", "first line of .* has to name the columns, and has a.png"),
        (("file", "x", "x"), [("a.png", 1, 2)], "", "several columns 'x'"),
        (("file", "x"), [("a.png", 1), ("b.png",), ("c.png", 1, 2)], "", "2 rows of .* row 3"),
        (("file", "a", "b"), [("a.png", 1, 7)], "?label=a,b", "column b of .* has 1 cell that is neither"),
        (("file", "a", "b"), [("a.png", 1, 0)], "?label=a,b&separator=;", "divides the cells of one column"),
        (("file", "tags"), [("a.png", "x;y")], "?separator=;", "separator= divides .*no column is called label"),
        (("file", "label"), [("a.png", "x")], "?label=&separator=;", "separator= divides .*there are none"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused_in_one_line(header, rows, query, words, tmp_path):
    with pytest.raises(LaminaError, match=words) as error:
        opened(tmp_path, header, rows, query)
    assert "\n" not in str(error.value)


PARQUET_BAD = {
    "empty": lambda good: b"",
    "text": lambda good: b"file,label\na.png,1\n" * 9,
    "the marks alone": lambda good: b"PAR1PAR1",
    "cut off": lambda good: good[:-20],
    "footer that is none": lambda good: good[:-60] + b"\xff" * 40 + good[-20:],
    "footer of gigabytes": lambda good: good[:-8] + b"\xff\xff\xff\x7fPAR1",
    "zeros": lambda good: b"\0" * 5000,
}


@pytest.mark.parametrize("name", PARQUET_BAD)
def test_what_is_no_parquet_file_is_refused_in_one_line(name, tmp_path):
    file = Path(write_parquet(tmp_path / "t.parquet", {"image": [png(0)] * 4}))
    file.write_bytes(PARQUET_BAD[name](file.read_bytes()))
    with pytest.raises(LaminaError, match=r"t\.parquet as parquet: ") as error:
        open_source(str(file))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"a": [png(0)], "b": [png(1)]}, "columns a and b of .* hold images"),
        ({"a": [1.5]}, "no column of .* its columns are a"),
        ({"a": [[1]]}, "no column"),
        ({"image": []}, "t.parquet has no rows"),
    ],
)
def test_columns_of_parquet_that_cannot_be_told(columns, words, tmp_path):
    file = write_parquet(tmp_path / "t.parquet", columns)
    with pytest.raises(LaminaError, match=words):
        open_source(file)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("label=when", "column when of .* holds no labels; its columns are image, mask, when, tags and x"),
        ("label=x,mask", "column mask of .* holds no labels"),
        ("part=mask", "column mask of .* holds no names of parts"),
        (
            "ending=.png",
            "ending= is put behind paths, and the column image of .* holds the images themselves",
        ),
        ("label=tags&separator=;", "for cells that are texts"),
    ],
)
def test_what_has_no_effect_on_columns_of_parquet_is_refused(query, words, tmp_path):
    """In a line without the bytes of an image in it."""
    columns = {"image": [png(0)], "mask": [png(1)], "when": [[b"x"]], "tags": [["a"]], "x": [1]}
    file = write_parquet(tmp_path / "t.parquet", columns)
    with pytest.raises(LaminaError, match=words) as error:
        open_source(f"{file}?image=image&{query}")
    assert len(str(error.value)) < 400


def test_what_lies_beside_parquet_files_is_said(tmp_path):
    (tmp_path / "data" / ".git").mkdir(parents=True)
    for name in ("data/b.parquet", "a.parquet"):
        write_parquet(tmp_path / name, {"image": [png(0)]})
    for name in ("labels.csv", "data/more.CSV", "README", ".x.parquet", "data/.git/y.parquet"):
        (tmp_path / name).write_text("x")
    source = open_source(str(tmp_path))
    assert len(source) == 2
    assert [note.partition(":")[0] for note in source.notes] == [
        "3 files passed over by the ending",
        "2 hidden files or folders passed over (names that begin with a dot)",
    ]
    assert "2 .csv, 1 without an ending" in source.notes[0]


def test_files_with_other_columns_are_no_one_table(tmp_path):
    write_parquet(tmp_path / "a.parquet", {"image": [png(0)]})
    write_parquet(tmp_path / "b.parquet", {"image": [png(0)], "label": [1]})
    with pytest.raises(LaminaError, match=r"b\.parquet has other columns than .*a\.parquet"):
        open_source(str(tmp_path))
    assert len(open_source(str(tmp_path / "?.parquet").replace("?", "a*"))) == 1


def test_cells_that_are_no_images_are_unreadable_one_by_one(tmp_path):
    (tmp_path / "beside.png").write_bytes(png(5))
    cells = [
        {"bytes": png(0), "path": None},
        {"bytes": None, "path": "beside.png"},
        {"bytes": None, "path": "gone.png"},
        {"bytes": b"no image", "path": None},
        {"bytes": None, "path": None},
        None,
    ]
    source = open_source(write_parquet(tmp_path / "t.parquet", {"image": cells}))
    assert torch.equal(source.read(1), open_source(str(tmp_path / "beside.png")).read(0))
    for i, reason in ((2, Reason.MISSING), (3, Reason.UNKNOWN_FORMAT), (4, Reason.EMPTY), (5, Reason.EMPTY)):
        with pytest.raises(Unreadable) as error:
            source.read(i)
        assert error.value.reason == reason


def test_a_table_that_changes_under_a_run_gives_unreadable_images(tmp_path):
    file = write_parquet(tmp_path / "t.parquet", {"image": [png(i) for i in range(6)]})
    source = open_source(file)
    write_parquet(tmp_path / "t.parquet", {"image": [png(9)]})
    with pytest.raises(Unreadable) as error:
        source.read(4)
    assert error.value.reason == Reason.BROKEN
    Path(file).unlink()
    with pytest.raises(Unreadable) as error:
        source.read(0)
    assert error.value.reason == Reason.MISSING


def test_addresses_in_a_table_are_refused_in_one_line(tmp_path):
    file = write_csv(tmp_path / "t.csv", ("file", "x"), [("s3://b/a.png", 1), ("s3://b/c.png", 2)])
    with pytest.raises(LaminaError, match=r"names addresses such as s3://b/a\.png"):
        open_source(str(file))
