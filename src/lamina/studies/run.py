"""A study run by run: each arm and seed is trained and measured once, and never again after that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lamina.core.config import merge, to_mapping
from lamina.core.errors import LaminaError, noted_on_interrupt
from lamina.core.frozen import identify
from lamina.core.records import as_json, read_object, write_json
from lamina.data.open import open_source
from lamina.data.sources import Source, images_digest
from lamina.features.data import LabelledData, open_labelled
from lamina.interop.load import load_encoder
from lamina.pretraining import run_pretrain
from lamina.recipes.recipe import Recipe
from lamina.runs.data_facts import data_facts
from lamina.runs.resumable_folder import opened_to_go_on
from lamina.runs.run import Run
from lamina.runs.same_settings import check_same_settings, is_free
from lamina.studies.measure import StudyMeasurements
from lamina.studies.options import FORMER_NAMES, StudyOptions
from lamina.studies.page import StudyReport, write_study
from lamina.train import checkpoint

Measured = Mapping[str, Sequence[dict[str, Any]]]
"""What was measured, by arm, one entry for each seed."""

SETTINGS = "study.json"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Arm:
    """One way to train; all arms of a study share everything but what its name says."""

    name: str
    recipe: Recipe

    @property
    def folder(self) -> str:
        """Its name as part of a path."""
        return "".join(c if c.isalnum() or c in "+-" else "-" for c in self.name.replace(" ", ""))


@dataclass(frozen=True)
class StudyPlan:
    """The arms of a study, how they are measured and reported; `teacher` is trained before them, once."""

    arms: tuple[Arm, ...]
    measure: Callable[[Path, StudyMeasurements], dict[str, Any]]
    report: Callable[[Measured, Mapping[str, Any]], StudyReport]
    teacher: Arm | None = None
    teacher_seed: int = 1000


@dataclass(frozen=True)
class StudyRun:
    """What became of a study: its page, or the exit code of a run that was interrupted."""

    page: Path | None
    exit_code: int = 0


@dataclass(frozen=True)
class Study:
    """An experiment by its name: its question, how many steps its sizes have, and its plan."""

    name: str
    question: str
    steps: Mapping[str, int]
    plan: Callable[[StudyOptions, Source, int, Path], StudyPlan]


def run_study(
    study: Study,
    data: str,
    out: str | Path,
    options: StudyOptions | None = None,
    say: Say = print,
    command: str = "",
) -> StudyRun:
    """Train and measure what is still missing in `out`, then write its table, figure and page.

    Killed at any time, it goes on when called again: runs are resumed from their checkpoints.

    Args:
        study: `lamina.studies.feature_bias`, `pair` or `fusion`.
        data: labelled images; probes use the held-out part, training never does.
        out: folder; `runs/`, `measured/`, and the page README.md beside result.json and the figure.
        options: size, seeds, network.
        say: called with a line of text for each run.
        command: shown on the page.

    Raises:
        LaminaError: where `out` holds a study with other settings, or as pre-training does.
    """
    options = options or StudyOptions()
    out = Path(out)
    measurements = StudyMeasurements(open_labelled(data), options)
    source = open_source(data)
    steps = options.steps or study.steps[options.size]
    plan = study.plan(options, source, steps, out)
    settings = _settings(study, measurements.data, source, options, steps, plan)
    with opened_to_go_on(out, out / SETTINGS, "study"):
        _start(out, settings, say)

        def kept() -> str:
            """What an interruption leaves."""
            files = [_file(out, arm, seed) for arm in plan.arms for seed in range(options.seeds)]
            done = sum(file.is_file() for file in files)
            return (
                f"{done} of {len(files)} runs are measured and kept in {out}: the same command goes on there"
            )

        with noted_on_interrupt(kept):
            return _run(study, plan, settings, _Trainer(data, out, measurements, options, say), command)


def _run(
    study: Study, plan: StudyPlan, settings: dict[str, Any], trained: _Trainer, command: str
) -> StudyRun:
    """Train and measure what is missing, then write the page."""
    options, out = trained.options, trained.out
    about: dict[str, Any] = {}
    if plan.teacher is not None:
        arms = [arm for arm in plan.arms if arm.recipe.target.teacher is not None]
        needed = not all(_file(out, arm, seed).is_file() for arm in arms for seed in range(options.seeds))
        code, about["teacher"] = trained(plan.teacher, plan.teacher_seed, _of_teacher, "the teacher", needed)
        if code:
            return StudyRun(None, code)
    measured: dict[str, list[dict[str, Any]]] = {arm.name: [] for arm in plan.arms}
    n = len(plan.arms) * options.seeds
    for seed in range(options.seeds):
        for i, arm in enumerate(plan.arms):
            place = f"run {seed * len(plan.arms) + i + 1} of {n}: {arm.name}, seed {seed}"
            code, found = trained(arm, seed, plan.measure, place)
            if code:
                return StudyRun(None, code)
            measured[arm.name].append(found)
    about = {**settings, **about}
    report = plan.report(measured, about)
    return StudyRun(write_study(out, study.name, study.question, report, about, measured, command))


@dataclass(frozen=True)
class _Trainer:
    data: str
    out: Path
    measurements: StudyMeasurements
    options: StudyOptions
    say: Say

    def __call__(
        self,
        arm: Arm,
        seed: int,
        measure: Callable[[Path, StudyMeasurements], dict[str, Any]],
        place: str,
        needed: bool = False,
    ) -> tuple[int, dict[str, Any]]:
        """The exit code and what was found; `needed`: the run itself too, where its folder is gone."""
        file = _file(self.out, arm, seed)
        run = self.out / "runs" / file.stem
        whole = arm.recipe.train.max_steps in checkpoint.steps(Run(run).checkpoints)
        if file.is_file() and (whole or not needed):
            return 0, _read(file)
        self.say(place)
        recipe = replace(arm.recipe, train=replace(arm.recipe.train, seed=seed))
        outcome = run_pretrain(recipe, self.data, run, resume=True)
        if outcome.exit_code:
            if outcome.reason == "nonfinite":
                self.say(
                    "the arms of a study share one learning rate, which follows the batch: start it anew in "
                    "another --out with a smaller --batch-size"
                )
            return outcome.exit_code, {}
        found = measure(run, self.measurements)
        _check_same(file, found)
        write_json(file, found)
        self.say(f"  measured: {_brief(found)}")
        return 0, found


def _file(out: Path, arm: Arm, seed: int) -> Path:
    """Where what was measured on a run is kept."""
    return out / "measured" / f"{arm.folder}-seed{seed}.json"


def _read(file: Path) -> dict[str, Any]:
    return read_object(file, mend="restore it from a copy, or delete it to measure that run again")


def seconds_of(run: Path) -> float:
    """What the run's training took, by the median speed of its log rows: pauses and probes left out."""
    rows = [row for row in Run(run).metrics() if row.get("images_per_second")]
    recipe = Run(run).recipe()
    speeds = sorted(float(row["images_per_second"]) for row in rows)
    return int(rows[-1]["step"]) * recipe.train.batch_size / speeds[len(speeds) // 2]


def _of_teacher(run: Path, measurements: StudyMeasurements) -> dict[str, Any]:
    backbone = load_encoder(run)
    return {**measurements.probes(backbone), "sha256": identify("teacher", backbone).sha256}


def _check_same(file: Path, found: Mapping[str, Any]) -> None:
    """Arms of one study have one teacher: one that was trained again must be the one that was measured."""
    if file.is_file() and _read(file).get("sha256") != found["sha256"]:
        raise LaminaError(
            f"the teacher that was trained again is not the one of {file}, whose run is gone: its weights "
            "differ; choose another --out"
        )


def _brief(found: Mapping[str, Any]) -> str:
    shown = {name: found[name] for name in ("knn", "linear") if isinstance(found.get(name), float)}
    return ", ".join(f"{name} {100 * value:.1f} %" for name, value in shown.items()) or "done"


def _settings(
    study: Study, data: LabelledData, source: Source, options: StudyOptions, steps: int, plan: StudyPlan
) -> dict[str, Any]:
    facts = data_facts(data.name, source)
    # More seeds may be added later; the number of steps stands by itself.
    further = ("seeds", "size", "steps")
    kept = {
        FORMER_NAMES.get(n, n): value
        for n, value in asdict(options).items()
        if not is_free(n) and n not in further
    }
    return {
        "study": study.name,
        "data": {name: getattr(facts, name) for name in ("source", "images", "names_sha256")},
        "images": images_digest(data.train, data.test),
        "steps": steps,
        "epochs": steps * options.batch_size / len(source),
        "options": kept,
        "arms": {arm.name: _unplaced(arm.recipe) for arm in plan.arms},
    }


def _unplaced(recipe: Recipe) -> dict[str, Any]:
    """The recipe without what the numbers do not depend on."""
    mapping: dict[str, Any] = to_mapping(recipe)
    for name in ("workers", "worker_timeout_seconds"):
        mapping["data"].pop(name)
    mapping["train"].pop("device")
    if mapping["target"]["teacher"] is not None:
        mapping["target"]["teacher"] = "the study's teacher"
    return mapping


def _start(out: Path, settings: dict[str, Any], say: Say) -> None:
    file, now = out / SETTINGS, as_json(settings)
    if not file.is_file():
        write_json(file, settings)
        return
    before = read_object(file, mend="restore it from a copy, or choose another --out")
    stored = {"images": now["images"], **before}
    if isinstance(arms := stored.get("arms"), dict):
        complete = {name: merge(Recipe(), recipe) for name, recipe in arms.items()}  # with fields added since
        stored["arms"] = {name: as_json(_unplaced(recipe)) for name, recipe in complete.items()}
    check_same_settings(stored, now, f"{out} holds a study", "give the same, or another --out")
    if "images" not in before:
        say(f"{file} does not say which images were trained on; they are taken to be those of now")
        write_json(file, settings)
