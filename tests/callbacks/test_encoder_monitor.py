"""MonitorPlan at the encoder in training: the numbers of the analyses, a stated cost, and no trace in the weights."""

import json
import logging
import math
import shutil
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import lamina
from helpers.options import TINY_NETWORK, as_read
from helpers.report_runs import toy_method, toy_recipe
from lamina.analyze.fusion_weights import analyze_layers
from lamina.analyze.measures.rank import entropy_rank, rankme
from lamina.analyze.models import open_models
from lamina.analyze.rank import analyze_rank
from lamina.callbacks.encoder_monitor import (
    SHARE,
    EncoderMonitor,
    MonitorPlan,
    fewest_steps,
    interval,
    is_due,
    knn_top1,
    monitor_cost,
)
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.data.decode.unreadable import Unreadable
from lamina.data.open import open_source
from lamina.data.sources import ArraySource, Source
from lamina.methods.catalog import recipe
from lamina.recipes.build import build_method, compose_task, resolve
from lamina.recipes.recipe import MonitorOptions
from lamina.runs.run import Run
from lamina.train.rows import CLOCK_FIELDS
from lamina.train.state import TrainState

DATA = "sample:photos?crop=16&most=20"
SIZES = {"image_size": 16, "patch_size": 4, "batch_size": 16, "workers": 0, "max_steps": 8}
TINY = TINY_NETWORK | {
    "encoder.depth": 3,
    "encoder.drop_path": 0.1,
    "train.log_every_steps": 3,
    "train.keep_checkpoints": 1000,
    "train.checkpoint_every_seconds": None,
    "train.checkpoint_every_steps": 1,
}


def train(out, data=DATA, name="mae-small", **monitor):
    options = TINY | {f"monitor.{key}": value for key, value in monitor.items()}
    return lamina.pretrain(data, out, name, options=as_read(name, options), **SIZES)


def rows(run):
    return [{k: v for k, v in row.items() if k not in CLOCK_FIELDS} for row in Run(run).metrics()]


def tensors(run, step=8):
    folder = run / "checkpoints" / f"step-{step}"
    return [(folder / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")]


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A run of 8 steps with rows at 3, 6 and 8, and looks at the last two."""
    out = tmp_path_factory.mktemp("watched") / "run"
    train(out, every_steps=4)
    return out


# Numbers


@pytest.mark.parametrize(("n", "d"), [(30, 8), (8, 30)])
def test_rankme_is_that_of_the_singular_values(n, d):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(n)) + 0.3
    assert rankme(x) == pytest.approx(entropy_rank(torch.linalg.svdvals(x.double()), 1e-7), rel=1e-6)
    equal = 7.0 * torch.eye(n, d)
    assert rankme(equal) == pytest.approx(8, rel=1e-4)


def test_knn_asks_every_image_and_lets_the_others_answer():
    generator = torch.Generator().manual_seed(4)
    labels = torch.arange(40) % 3
    x = torch.randn(3, 6, generator=generator)[labels] + 0.6 * torch.randn(40, 6, generator=generator)
    x += torch.tensor([9.0, 0, 0, 0, 0, 0])  # nearly parallel until centred
    unit = torch.nn.functional.normalize(x - x.mean(0), dim=1).double()
    right = 0
    for i in range(40):
        near = sorted((j for j in range(40) if j != i), key=lambda j: -float(unit[i] @ unit[j]))[:10]
        votes = [sum(math.exp(unit[i] @ unit[j] / 0.07) for j in near if labels[j] == c) for c in range(3)]
        right += votes.index(max(votes)) == labels[i]
    assert 0.5 < right / 40 < 1
    assert knn_top1(x, labels) == pytest.approx(right / 40)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_features_that_are_not_finite_are_no_number(bad):
    x = torch.full((9, 4), bad)
    assert rankme(x) is None
    assert knn_top1(x, torch.arange(9) % 2) is None
    assert knn_top1(torch.rand(1, 4), torch.zeros(1, dtype=torch.int64)) is None


def test_a_look_says_what_the_analyses_say(watched):
    """At the last step, of the same images: `lamina analyze rank`, and kNN on the features of the run."""
    at = {row["step"]: row for row in rows(watched)}
    assert [step for step, row in at.items() if "rankme" in row] == [6, 8]
    subject = open_models({"run": watched}, DATA)
    scores = analyze_rank(subject).models["run"].final
    expected = next(s.rankme for s in scores if (s.place, s.pool) == ("last", "mean"))
    assert at[8]["rankme"] == pytest.approx(expected, rel=1e-5)
    backbone, batches = subject["run"].backbone, list(subject["run"].batches)
    labels = torch.cat([batch.labels for batch in batches])
    with torch.no_grad():
        features = torch.cat([backbone(batch.images).pooled("mean") for batch in batches])
    assert at[8]["knn_top1"] == pytest.approx(knn_top1(features, labels))
    assert at[6]["rankme"] != at[8]["rankme"]


def test_the_bias_of_every_row_is_that_of_its_weights(watched):
    for row in rows(watched):
        for what in ("weight", "share"):
            first, middle, last = row[f"fusion_{what}s"]
            assert row[f"bias_{what}_first_half"] == pytest.approx(first + middle / 2)
            assert row[f"bias_{what}_centre"] == pytest.approx(middle / 2 + last)
    told = analyze_layers({"run": watched}).runs["run"]
    assert rows(watched)[-1]["bias_share_centre"] == pytest.approx(told.by_share.centre)


# When, and at what cost


def test_the_interval_in_closed_form():
    # A look worth 300 images may be 0.5 % of 60,000 images, or 938 batches of 64.
    assert fewest_steps(300, 64) == math.ceil(60_000 / 64) == 938
    assert fewest_steps(300, 64, ranks=2) == math.ceil(120_000 / 64)  # one process looks, two wait
    assert interval(300, 64, 937) is None
    assert interval(300, 64, 938) == 938
    assert interval(300, 64, 2 * 938 - 1) == 2 * 938 - 1
    assert interval(300, 64, 3000) == 1000  # three looks, the last one at the end
    assert interval(300, 64, 10**6) == 10**4  # a hundred looks at most


@given(
    st.floats(0.5, 1e5),
    st.integers(1, 4096),
    st.integers(1, 10**6),
    st.integers(1, 64),
)
def test_looks_stay_within_their_share(cost, batch_size, total, ranks):
    every = interval(cost, batch_size, total, ranks)
    looks = 0 if every is None else total // every
    assert looks * cost * ranks <= SHARE * total * batch_size * (1 + 1e-6) + 1e-6
    if every is None:
        assert cost * ranks > SHARE * total * batch_size * (1 - 1e-6)
    else:
        assert 1 <= looks <= 200
        assert total % every < every


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 200))
def test_each_look_is_at_the_first_row_from_its_step_on(every, log_every, total):
    row_steps = [step for step in range(1, total + 1) if step % log_every == 0 or step == total]
    expected = {next(r for r in row_steps if r >= due) for due in range(every, total + 1, every)}
    assert {step for step in row_steps if is_due(step, every, log_every)} == expected


def meta_task(name):
    chosen = resolve(recipe(name))
    chosen = replace(chosen, labels=replace(chosen.labels, classes=("a", "b")))
    with torch.device("meta"):
        return chosen, compose_task(chosen).train()


@pytest.mark.parametrize(
    "name", ["mae", "demo", "simmim-small", "crossmae-small", "cmae-small", "deit-small"]
)
def test_no_look_costs_more_than_is_counted(name):
    """Against torch's own count of the multiplications in a forward and in a training step."""
    chosen, task = meta_task(name)
    with torch.device("meta"):
        height, width = chosen.encoder.image_size
        images, keys = torch.empty(2, 3, height, width), torch.empty(2, dtype=torch.int64)
        view = images if chosen.method == "cmae" else None
        with FlopCounterMode(display=False) as step:
            task(Batch(images, keys, labels=keys, view=view))["loss"].backward()
        with FlopCounterMode(display=False) as look, torch.no_grad():
            task.encoder(images, (task.encoder.depth - 1,))
    counted = look.get_total_flops() / step.get_total_flops()
    assert 0.4 * monitor_cost(chosen, task) < counted < 1.01 * monitor_cost(chosen, task)


def test_the_cost_of_a_look_written_out():
    # MAE's ViT-S/16 of 224 px: 50 of 197 tokens through 12 blocks of 384, all through 6 of the 8 of 512.
    encoder = 12 * 384 * 197 * (6 * 384 + 197)
    trained = 12 * 384 * 50 * (6 * 384 + 50) + 6 * 512 * 197 * (6 * 512 + 197)
    assert monitor_cost(*meta_task("mae")) == pytest.approx(encoder / (3 * trained))
    assert monitor_cost(*meta_task("simmim-small")) == pytest.approx(1 / 3)
    assert monitor_cost(*meta_task("deit-small")) == pytest.approx(1 / 3)


def test_by_default_a_run_looks_as_often_as_it_can_afford(tmp_path, capsys):
    train(tmp_path / "short")
    assert "monitor" not in capsys.readouterr().out
    assert not any("rankme" in row for row in rows(tmp_path / "short"))
    train(tmp_path / "asked", images=20)
    assert "the run is too short for an evaluation" in capsys.readouterr().out
    train(tmp_path / "stated", images=20, every_steps=4)
    chosen = Run(tmp_path / "stated").recipe()
    share = 100 * 20 * monitor_cost(chosen, compose_task(chosen)) / (4 * 16)
    assert (
        f"monitor: RankMe of 20 images every 4 steps, {share:.1f} % of the steps' work by count"
        in capsys.readouterr().out
    )
    assert [row["step"] for row in rows(tmp_path / "stated") if "rankme" in row] == [6, 8]


# No trace


def test_looks_change_no_weight(watched, tmp_path):
    train(tmp_path / "run", images=0)
    assert tensors(tmp_path / "run") == tensors(watched)
    added = {"rankme", "knn_top1"}
    assert rows(tmp_path / "run") == [
        {k: v for k, v in row.items() if k not in added} for row in rows(watched)
    ]


def test_a_resume_at_any_step_has_the_same_rows(watched, tmp_path):
    for step in (1, 5, 6, 7):  # rows at 3, 6 and 8, looks at the last two
        part = tmp_path / f"from-{step}"
        shutil.copytree(watched, part)
        for later in range(step + 1, 9):
            shutil.rmtree(part / "checkpoints" / f"step-{later}")
        lamina.pretrain(DATA, part, resume=True)
        assert rows(part) == rows(watched)
        assert tensors(part) == tensors(watched)


def test_a_resume_may_look_otherwise(watched, tmp_path):
    part = tmp_path / "part"
    shutil.copytree(watched, part)
    shutil.rmtree(part / "checkpoints" / "step-8")
    lamina.pretrain(DATA, part, resume=True, options={"monitor.images": 0})
    assert "rankme" not in rows(part)[-1]
    assert tensors(part) == tensors(watched)


def monitor(source, labelled=None, every=1):
    chosen = toy_recipe()
    chosen = replace(
        chosen, train=replace(chosen.train, log_every_steps=1), data=replace(chosen.data, workers=0)
    )
    return EncoderMonitor(MonitorPlan(source, labelled, every, 0.0), chosen)


def pictures(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (n, 3, 20, 16), generator=generator, dtype=torch.uint8)
    return ArraySource(images, [f"image {i}" for i in range(n)], [i % 2 for i in range(n)], ["a", "b"])


def test_a_look_leaves_modes_buffers_and_random_numbers_as_they_were():
    chosen = toy_recipe()
    method = build_method(replace(chosen, encoder=replace(chosen.encoder, drop_path=0.5))).train()
    method.encoder.vit.blocks[0].eval()
    looking = monitor(pictures(12), pictures(8, seed=1))
    looking.on_start(TrainState(total_steps=9))
    modes = {name: part.training for name, part in method.named_modules()}
    state = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    batch, before = Batch(torch.rand(2, 3, 16, 16)), torch.random.get_rng_state()
    found = looking.on_log(1, {}, batch, method)
    assert set(found) == {"rankme", "knn_top1"}
    assert {name: part.training for name, part in method.named_modules()} == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in method.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(p.grad is None for p in method.parameters())


class Unreadables(Source):
    """Files of which none can be read."""

    def inspect(self, i, how=None):
        raise Unreadable(self.name(i), "empty file")


def test_images_that_cannot_be_read_do_not_end_a_run(caplog):
    looking = monitor(Unreadables(["a.png", "b.png"]))
    with caplog.at_level(logging.WARNING, "lamina"):
        looking.on_start(TrainState(total_steps=9))
    assert "will not be evaluated" in caplog.text
    assert looking.on_log(1, {}, Batch(torch.rand(2, 3, 16, 16)), toy_method()) is None


# Which images


def folder(path, classes, n, start=0):
    """A folder of `n` pictures in each of `classes` (None: without classes)."""
    for i in range(n):
        for c, name in enumerate(classes or [""]):
            (path / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (start + 20 * i, 90 * c, 10 * i)).save(
                path / name / f"{start}-{i}.png"
            )
    return str(path)


def test_without_parts_the_training_images_serve(tmp_path):
    data = folder(tmp_path / "photos", None, 12)
    train(tmp_path / "run", data, every_steps=8)
    assert "rankme" in rows(tmp_path / "run")[-1]
    assert "knn_top1" not in rows(tmp_path / "run")[-1]
    shown = folder(tmp_path / "labelled", ["a", "b"], 5)
    train(tmp_path / "knn", data, every_steps=8, knn_data=shown)
    last = rows(tmp_path / "knn")[-1]
    assert last["rankme"] == rows(tmp_path / "run")[-1]["rankme"]
    assert last["knn_top1"] in [i / 10 for i in range(11)]


def test_a_held_out_part_that_cannot_be_opened_is_done_without(tmp_path):
    folder(tmp_path / "photos/train", ["a"], 6)
    (tmp_path / "photos/val").mkdir()
    train(tmp_path / "run", str(tmp_path / "photos"), every_steps=8)
    assert "rankme" in rows(tmp_path / "run")[-1]


@pytest.mark.parametrize(
    ("monitor", "sentence"),
    [
        ({"images": 500}, r"monitor\.images is 500, but there are 153 images"),
        ({"images": 1}, r"monitor\.images is 1; give 2 or more, or 0"),
        ({"images": 0, "knn_data": "x"}, "has no effect with monitor.images 0"),
        ({"every_steps": 0}, r"every_steps is 0"),
        ({"knn_data": "{bare}"}, "has no classes"),
        ({"knn_data": "{few}"}, r"4 images of 2 class\(es\) .* too few for kNN"),
        ({"knn_data": "{bare}/nothing"}, "there is no"),
    ],
)
def test_what_makes_no_sense_is_refused_before_a_run_is_made(tmp_path, monitor, sentence):
    places = {"bare": folder(tmp_path / "bare", None, 3), "few": folder(tmp_path / "few", ["a", "b"], 2)}
    given = {k: v.format(**places) if isinstance(v, str) else v for k, v in monitor.items()}
    with pytest.raises(LaminaError, match=sentence) as error:
        train(tmp_path / "run", **given)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_every_kind_of_task_is_looked_at(tmp_path):
    for name in ("cmae-small", "deit-small"):
        options = as_read(name, TINY | {"monitor.every_steps": 4, "cmae.hidden": 16, "cmae.out": 8})
        lamina.pretrain(DATA, tmp_path / name, name, options=options, **SIZES)
        found = [row for row in rows(tmp_path / name) if "rankme" in row]
        assert [row["step"] for row in found] == [6, 8]
        assert 1 <= found[0]["rankme"] <= 24 + 1e-3
        assert 0 <= found[0]["knn_top1"] <= 1


def test_a_recipe_keeps_what_was_asked_for(watched):
    assert Run(watched).recipe().monitor == MonitorOptions(every_steps=4)
    assert len(open_source(DATA, "val")) == 153
    assert json.loads((watched / "metrics.jsonl").read_text().splitlines()[-1])["knn_top1"] is not None
