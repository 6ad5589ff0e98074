"""Files of results: other images under the same name do not replace a result."""

import json
import os
import shutil
from pathlib import Path

import pytest

from helpers.runs import stripes_folder, toy_recipe, toy_run
from lamina.data.digest import SAMPLED_BYTES, SAMPLED_FILES
from lamina.data.open import open_source
from lamina.data.sources import FileSource, Subset, images_digest
from lamina.evaluate.probes import evaluate_knn
from lamina.evaluate.result_files import result_file, score_file
from lamina.evaluate.score import Score
from lamina.features.options import KNNOptions
from lamina.report.read_run import read_runs


@pytest.mark.parametrize("change", ["other pictures", "one byte"])
def test_other_content_of_the_same_files_is_another_result(change, tmp_path):
    """One path and one set of names; in one case not even sizes and times tell the files apart."""
    run, folder = tmp_path / "run", stripes_folder(tmp_path / "data")
    toy_run(run, toy_recipe())
    arguments = {"options": KNNOptions(k=(1,)), "workers": 0, "device": "cpu"}
    first = score_file(evaluate_knn(run, folder, **arguments))
    kept = first.read_text()
    if change == "other pictures":
        stripes_folder(tmp_path / "data", seed=7)
    else:
        file = min(Path(folder, "val").rglob("*.png"))
        content, times = bytearray(file.read_bytes()), file.stat()
        content[-1] ^= 1  # in the checksum of the chunk that ends a PNG
        file.write_bytes(content)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = score_file(evaluate_knn(run, folder, **arguments))
    assert second != first
    assert first.read_text() == kept
    shutil.move(folder, tmp_path / "moved")  # the same files elsewhere are the same images
    parts = (open_source(tmp_path / "moved", part) for part in ("train", "val"))
    assert images_digest(*parts) == json.loads(second.read_text())["images"]


def test_what_of_many_and_of_large_files_is_covered(tmp_path):
    """The sizes of all; the bytes of a sample of them, which is spread over all, at both ends."""
    names = [f"{i:05}.bin" for i in range(2 * SAMPLED_FILES)]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    source = FileSource(str(tmp_path), names)
    before = images_digest(source)

    def is_told_apart(i: int, content: bytes) -> bool:
        (tmp_path / names[i]).write_bytes(content)
        found = images_digest(source) != before
        (tmp_path / names[i]).write_bytes(b"x")
        return found

    assert [is_told_apart(i, b"y") for i in (0, 1, -2, -1)] == [True, False, True, False]
    assert is_told_apart(1, b"xx")
    few = Subset(source, [0, 2])
    assert images_digest(few) != images_digest(Subset(source, [0, 1]))
    large, found = FileSource(str(tmp_path), ["large.bin"]), []
    for place in (0, SAMPLED_BYTES - 1, 2 * SAMPLED_BYTES, 3 * SAMPLED_BYTES, 4 * SAMPLED_BYTES - 1):
        for value in (0, 1):
            content = bytearray(4 * SAMPLED_BYTES)
            content[place] = value
            (tmp_path / "large.bin").write_bytes(content)
            found.append(images_digest(large))
    assert [a != b for a, b in zip(found[::2], found[1::2], strict=True)] == [True, True, False, True, True]


def test_one_relative_path_in_two_folders_is_two_results(tmp_path, monkeypatch):
    """`evaluate knn RUN data` in one folder and in another; the images have the same names."""
    run = tmp_path / "run"
    toy_run(run, toy_recipe())
    found = {}
    for place in ("w1", "w2", "w1"):
        if not (tmp_path / place).exists():
            stripes_folder(tmp_path / place / "data", seed=int(place[1]))
        monkeypatch.chdir(tmp_path / place)
        result = evaluate_knn(run, "data", options=KNNOptions(k=(1,)), workers=0, device="cpu")
        found.setdefault(place, set()).add(score_file(result))
    assert all(len(files) == 1 for files in found.values())
    assert found["w1"] != found["w2"]
    files = sorted((run / "results").glob("knn-*.json"))
    assert len(files) == 2
    data = read_runs([run])[0]
    assert len({shown.data for shown in data.results}) == 2
    assert not [note for note in data.notes if "left out" in note]
    # One of an earlier version does not say its images: it is read, and replaced by one of its name.
    ((old,),) = [found["w1"]]
    content = json.loads(old.read_text())
    del content["images"], content["content_sha256"]
    old.write_text(json.dumps(content))
    assert Score.read(old).images == ""
    assert result_file(run / "results", "knn", "data", content["variant"], 0, None, "another") == old
