"""The report of a run in progress: fresh, bounded in cost, and never the end of the training."""

from __future__ import annotations

import json
import logging
import re
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.report_runs import Page, toy_gallery, toy_method, toy_recipe, toy_row
from lamina.core.batch import Batch, Fault
from lamina.data.sources import ArraySource
from lamina.mim import MIM
from lamina.report import live as live_module
from lamina.report.gallery import Seen
from lamina.report.live import LiveReport
from lamina.runs.data_facts import DataFacts
from lamina.runs.run import Run
from lamina.train.state import Outcome, TrainState

STATE = TrainState(total_steps=40)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "run")
    run.start(toy_recipe(), DataFacts("photos", 10, "0" * 64), None)
    return run


@pytest.fixture(scope="module")
def method() -> MIM:
    return toy_method()


class Clock:
    """Stands for `time` in the callback; the page's own time is not touched."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    thread_time = monotonic


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(live_module, "time", clock)
    return clock


def batch(n: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.randint(256, (n, 3, 16, 16), generator=generator, dtype=torch.uint8))


def outcome(run: Run, step: int) -> Outcome:
    return Outcome("finished", step, 40, run.checkpoints / f"step-{step}", {})


def pictured(run: Run) -> int | None:
    index = run.pictures / "index.json"
    return json.loads(index.read_text())["step"] if index.exists() else None


def refreshes(run: Run) -> bool:
    page = Page(run.report_file.read_text(encoding="utf-8"))
    return any(a.get("http-equiv") == "refresh" for a in page.all("meta"))


def test_the_report_grows_with_the_run_and_stands_still_at_its_end(
    run: Run, clock: Clock, method: MIM
) -> None:
    live = LiveReport(run.path, toy_gallery(["a", "b", "c"], []))
    live.on_start(STATE)
    assert refreshes(run)
    assert "Nothing has been logged yet" in run.report_file.read_text(encoding="utf-8")
    run.metrics_file.write_text(json.dumps(toy_row(10, 4)) + "\n")
    assert live.on_log(20, toy_row(20, 4), batch(), method) is None
    live.wait()
    assert pictured(run) == 20
    assert refreshes(run)
    live.on_end(outcome(run, 40))
    assert pictured(run) == 40
    assert not refreshes(run)
    assert not [p for p in run.path.rglob("*") if p.name.endswith(".tmp")]


def test_refreshes_wait_their_time(run: Run, clock: Clock, method: MIM) -> None:
    live = LiveReport(run.path, toy_gallery(["a", "b"], []), every_seconds=20)
    seen = []
    for step in range(10):
        live.on_log(step, {}, batch(), method)
        live.wait()
        seen.append(pictured(run))
        clock.now += 8
    assert seen == [0, 0, 0, 3, 3, 3, 6, 6, 6, 9]


def test_a_slow_report_is_made_less_often(
    run: Run, clock: Clock, method: MIM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """30 s of work may take 0.5 % of the time: the next refresh comes 6,000 seconds later."""
    live = LiveReport(run.path, toy_gallery(["a", "b"], []), every_seconds=20)
    drawn: list[float] = []

    def slow(seen: Seen, folder: Path) -> None:
        drawn.append(clock.now)
        clock.now += 30

    monkeypatch.setattr(live_module, "draw", slow)
    for step in range(125):
        live.on_log(step, {}, batch(), method)
        live.wait()
        clock.now += 100
    assert len(drawn) == 3
    assert drawn[1] - drawn[0] == pytest.approx(6030, abs=100)


def test_no_step_waits_for_what_is_drawn(
    run: Run, clock: Clock, method: MIM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training goes on while a picture cannot be finished; the end waits, and has its own pictures."""
    live, drawn, may_end = LiveReport(run.path, toy_gallery(["a", "b"], [])), [], threading.Event()
    plain = live_module.draw

    def stuck(seen: Seen, folder: Path) -> None:
        drawn.append((seen.step, may_end.wait(30)))
        plain(seen, folder)

    monkeypatch.setattr(live_module, "draw", stuck)
    for step in range(3):
        live.on_log(step, {}, batch(), method)
        clock.now += 1e6
    assert pictured(run) is None
    may_end.set()
    live.on_end(outcome(run, 3))
    assert drawn == [(0, True), (3, True)]
    assert pictured(run) == 3
    assert not refreshes(run)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lamina-report")]


def test_a_method_that_moves_on_does_not_change_what_is_drawn(
    run: Run, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread has numbers of its own: the step that follows may overwrite every weight."""
    pictures = []
    for moves in (False, True):
        method, may_start = toy_method(), threading.Event()
        plain = live_module.draw

        def late(
            seen: Seen, folder: Path, plain: Any = plain, may_start: threading.Event = may_start
        ) -> None:
            may_start.wait(30)
            plain(seen, folder)

        live = LiveReport(run.path, toy_gallery(["a", "b"], []))
        with monkeypatch.context() as patched:
            patched.setattr(live_module, "draw", late)
            live.on_log(7, {}, batch(), method)
            if moves:
                with torch.no_grad():
                    for parameter in method.parameters():
                        parameter.zero_()
            may_start.set()
            live.wait()
        pictures.append(json.loads((run.pictures / "index.json").read_text())["sha256"])
    assert pictures[0] == pictures[1]


def test_without_a_gallery_the_first_batch_is_kept(run: Run, clock: Clock, method: MIM) -> None:
    live, first = LiveReport(run.path), batch()
    live.on_start(STATE)
    live.on_log(10, {}, first, method)
    live.wait()
    assert live.gallery is not None
    images = live.gallery.batch.images.clone()
    first.images.zero_()
    live.on_log(20, {}, batch(3), method)
    assert torch.equal(live.gallery.batch.images, images)
    names = [r["name"] for r in json.loads((run.pictures / "index.json").read_text())["restored"]]
    assert names == [f"training crop {i}" for i in range(1, 7)]


def test_a_sources_images_are_read_when_training_starts(run: Run, clock: Clock, method: MIM) -> None:
    source = ArraySource(batch(12).images, [f"file {i}.png" for i in range(12)])
    live = LiveReport.for_source(run.path, source)
    assert live.gallery is None
    live.on_start(STATE)
    live.on_log(10, {}, batch(), method)
    live.wait()
    assert re.search(r"<bdi>file \d+\.png</bdi>", run.report_file.read_text(encoding="utf-8"))
    names = [r["name"] for r in json.loads((run.pictures / "index.json").read_text())["restored"]]
    assert len(names) == 8
    assert all(re.fullmatch(r"file \d+\.png", name) for name in names)


def test_skipped_files_are_kept_by_name_over_a_resume(run: Run, clock: Clock) -> None:
    names = ["a.png", "<b>.jpg", "c.gif"]
    live = LiveReport(run.path, name_of=names.__getitem__)
    live.on_start(STATE)
    live.on_faults(
        [Fault(0, 1, "empty file"), Fault(1, 1, "empty file"), Fault(1, 2, "truncated or corrupt")]
    )
    again = LiveReport(run.path, name_of=names.__getitem__)
    again.on_start(TrainState(total_steps=40, step=20))
    again.on_faults([Fault(2, 0, "empty file")])
    again.on_end(outcome(run, 40))
    html = run.report_file.read_text(encoding="utf-8")
    assert "3 files" in html
    groups = re.findall(r"<summary>(.*?) <span class=\"count\">(\d)</span>", html)
    assert groups == [("empty file", "2"), ("truncated or corrupt", "1")]
    assert "&lt;b&gt;.jpg" in html


@pytest.mark.parametrize("where", ["gallery", "draw", "write_report"])
def test_a_failing_report_is_said_once_and_training_goes_on(
    where: str,
    run: Run,
    clock: Clock,
    method: MIM,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("no such luck")

    if where != "gallery":
        monkeypatch.setattr(live_module, where, fail)
    live = LiveReport(run.path, fail if where == "gallery" else toy_gallery(["a", "b"], []))  # type: ignore[arg-type]
    with caplog.at_level(logging.INFO, "lamina"):
        live.on_start(STATE)
        for step in range(3):
            live.on_log(step, {}, batch(), method)
            clock.now += 100
        live.on_faults([Fault(0, 0, "empty file")])
        live.on_end(outcome(run, 3))
    assert [r.getMessage() for r in caplog.records] == [
        "the report could not be refreshed (no such luck); training goes on"
    ]
    assert run.log_file.read_text().count("RuntimeError: no such luck") == 1


def test_a_run_that_fails_leaves_a_page_that_stands_still(run: Run, clock: Clock, method: MIM) -> None:
    live = LiveReport(run.path, toy_gallery(["a", "b"], []))
    live.on_start(STATE)
    assert refreshes(run)
    live.on_failure(KeyError("a bug"))
    assert not refreshes(run)
