"""`lamina evaluate detect` as users call it: COCO folders, plans, fields by name, and one line for what is wrong."""

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from helpers.detection import KINDS, SIZE, toy_objects
from helpers.runs import toy_recipe, toy_run
from lamina.cli import entry as cli
from lamina.evaluate.detect.coco_metrics import encode
from lamina.evaluate.detect.data import open_detect_data

SMALL = {
    "head": {
        "channels": 16,
        "proposals_train": 40,
        "proposals_test": 40,
        "region_samples": 16,
        "box_width": 32,
    },
    "data": {"workers": 0},
    "train": {"device": "cpu", "log_every_steps": 1},
}


@pytest.fixture
def run(tmp_path: Path) -> str:
    toy_run(tmp_path / "run", toy_recipe())
    return str(tmp_path / "run")


def coco_folder(root: Path, change=lambda part, annotations: annotations) -> str:
    """The toys as COCO has them: images, boxes, run lengths, crowds."""
    for part, n, seed in (("train", 6, 0), ("val", 4, 1)):
        source = toy_objects(n, seed)
        annotations = []
        (root / part).mkdir(parents=True)
        for i, objects in enumerate(source.objects):
            Image.fromarray(source.images.images[i].permute(1, 2, 0).numpy()).save(root / part / f"{i}.png")
            for box, label, mask, crowd in zip(*objects, strict=True):
                x1, y1, x2, y2 = box.tolist()
                lengths = encode(mask)
                if isinstance(lengths["counts"], bytes):
                    lengths["counts"] = lengths["counts"].decode()
                entry = {"id": len(annotations) + 1, "image_id": i, "category_id": 3 + int(label)}
                entry |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": int(crowd), "segmentation": lengths}
                annotations.append(entry | {"area": int(mask.sum())})
        content = {
            "images": [
                {"id": i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]} for i in range(n)
            ],
            "annotations": change(part, annotations),
            "categories": [{"id": 3 + k, "name": name} for k, name in enumerate(KINDS)],
        }
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return str(root)


@pytest.fixture
def config(tmp_path: Path) -> list[str]:
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(SMALL))
    return ["--config", str(file)]


def test_a_plan_says_steps_and_memory_and_writes_nothing(run, tmp_path, capsys):
    data = coco_folder(tmp_path / "coco")
    before = sorted(tmp_path.rglob("*"))
    command = [
        "evaluate",
        "detect",
        run,
        data,
        "--dry-run",
        "--recipe",
        "coco-vitdet-b",
        "--window.size",
        "64",
    ]
    assert cli.main(command) == 0
    told = capsys.readouterr().out
    assert "layer_decay: 0.7" in told
    assert "5 training and 4 test images, 2 classes; 184375 steps of 5" in told
    assert "GiB in fp32 for 1 image at a time" in told
    assert "each further image" in told
    assert "batch 5, all images there are, in place of 64" in told
    assert sorted(tmp_path.rglob("*")) == before


def test_a_training_keeps_its_score_and_goes_on(run, config, tmp_path, capsys):
    data, file = coco_folder(tmp_path / "coco"), tmp_path / "score.json"
    command = [
        "evaluate",
        "detect",
        run,
        data,
        *config,
        "--max-steps",
        "2",
        "--batch-size",
        "2",
        "--seed",
        "5",
    ]
    assert cli.main([*command, "--json", str(file), "--head.mask-convs", "1"]) == 0
    told = capsys.readouterr().out
    assert "bbox_mAP" in told
    assert "segm_AP50" in told
    score = json.loads(file.read_text())
    assert (score["protocol"], score["metric"], score["seed"], score["n_test"]) == (
        "detect",
        "bbox_mAP",
        5,
        4,
    )
    folder = Path(score["settings"]["folder"])
    assert folder.parent == Path(run) / "evaluations"
    assert {"detections.png", "score.json", "metrics.jsonl", "evaluation.yaml"} <= {
        f.name for f in folder.iterdir()
    }
    kept = yaml.safe_load((folder / "evaluation.yaml").read_text())
    assert kept["recipe"]["head"]["mask_convs"] == 1
    assert kept["classes"] == list(KINDS)
    assert cli.main([*command, "--head.mask-convs", "1"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert cli.main([*command, "--head.mask-convs", "1", "--resume"]) == 0
    assert "detect" in (Path(run) / "report.html").read_text()


def moved(part, annotations):
    """The second class is in validation alone."""
    return [{**each, "category_id": 3} if part == "train" else each for each in annotations]


def emptied(part, annotations):
    return [{**each, "bbox": [3, 3, 0, 5]} for each in annotations]


def nothing(part, annotations):
    return annotations if part == "train" else []


def strange(part, annotations):
    return [{**each, "category_id": 9} for each in annotations]


def test_annotations_are_told_from_others_of_the_same_names(tmp_path):
    """Copies of a folder, in one of which an object is a crowd."""

    def crowded(part, annotations):
        return [{**annotations[0], "iscrowd": 1}, *annotations[1:]]

    copies = coco_folder(tmp_path / "a"), coco_folder(tmp_path / "b"), coco_folder(tmp_path / "c", crowded)
    first, second, third = (open_detect_data(each).images_digest for each in copies)
    assert first == second != third


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (emptied, "nothing is labelled in the training part"),
        (nothing, "nothing is labelled in the validation part"),
        (strange, "8 of categories that are not listed"),
    ],
)
def test_annotations_that_teach_nothing_get_one_line(change, sentence, run, tmp_path, capsys):
    data = coco_folder(tmp_path / "coco", change)
    assert cli.main(["evaluate", "detect", run, data]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1


def test_a_class_in_validation_alone_and_a_single_one_are_said(run, tmp_path, capsys):
    data = coco_folder(tmp_path / "coco", moved)
    assert cli.main(["evaluate", "detect", run, data, "--dry-run"]) == 0
    assert "1 class in validation alone, 'green' among them" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--recipe", "coco-vitdet-x"], "did you mean coco-vitdet"),
        (["--head.channels", "many"], "--head.channels"),
        (["--head.scales", "3"], "scales"),
        (["--attention.window", "2", "--attention.global-blocks", "40"], "0 to 2"),
        (["--no-such", "1"], "--no-such"),
    ],
)
def test_wrong_options_get_one_line(options, sentence, run, tmp_path, capsys):
    data = coco_folder(tmp_path / "coco")
    assert cli.main(["evaluate", "detect", run, data, *options]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1
