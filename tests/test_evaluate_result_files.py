"""Files of results: other images under the same name do not replace a result."""

import json

from evaluate_toys import stripes_folder, toy_recipe, toy_run
from lamina.evaluate import KNNOptions, ProbeResult, evaluate_knn, results_file
from lamina.evaluate.result_files import result_file
from lamina.report.gather import read_runs


def test_one_relative_path_in_two_folders_is_two_results(tmp_path, monkeypatch):
    """`evaluate knn RUN data` in one folder and in another; the images have the same names."""
    run = tmp_path / "run"
    toy_run(run, toy_recipe())
    found = {}
    for place in ("w1", "w2", "w1"):
        if not (tmp_path / place).exists():
            stripes_folder(tmp_path / place / "data")
        monkeypatch.chdir(tmp_path / place)
        result = evaluate_knn(run, "data", options=KNNOptions(k=(1,)), workers=0, device="cpu")
        found.setdefault(place, set()).add(results_file(result))
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
    assert ProbeResult.read(old).images == ""
    assert result_file(run / "results", "knn", "data", content["way"], 0, None, "another") == old
