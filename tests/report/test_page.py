"""The report's page: complete in itself, whole at any time of a run, and indifferent to hostile names."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from helpers.report_runs import Page, toy_recipe, toy_row, toy_run
from lamina.core.errors import LaminaError
from lamina.core.records import read_json, write_json
from lamina.evaluate.score import Score
from lamina.report import page as page_module
from lamina.report.format import visible
from lamina.report.page import write_report
from lamina.runs.data_facts import DataFacts
from lamina.runs.run import Run

MARK = "document.documentElement.setAttribute('data-pwned','1')"
PAYLOADS = [
    f"<script>{MARK}</script>",
    f"</title><script>{MARK}</script>",
    f"</style><script>{MARK}</script>",
    f'"><img src=x onerror="{MARK}">',
    f"'><img src=x onerror={MARK}>",
    f'" onload="{MARK}" x="',
    f"<svg onload={MARK}>",
    f"</svg></text><script>{MARK}</script>",
    f"<iframe srcdoc='<script>parent.{MARK}</script>'>",
    f"<body onload={MARK}>",
    f"<details open ontoggle={MARK}>",
    f"javascript:{MARK}",
    f"<a href=javascript:{MARK}>x</a>",
    "<meta http-equiv=refresh content=0;url=data:text/html,pwned>",
    "<base href=//evil.example/><link rel=stylesheet href=//evil.example/x.css>",
    "</textarea><!--<plaintext>",
    "{{ 7 * 7 }}{% raw %}<b>bold</b>",
    f"&lt;script&gt;{MARK}&lt;/script&gt;&#60;script&#62;",
    "<style>*{display:none}</style>]]><![CDATA[<x>",
    "\u202egpj.<b>evil\u2066\x00\x1b[31m\n\r\t\udcff.jpg",
]


def elements(html: str) -> Counter[tuple[str, tuple[str, ...]]]:
    """How often each tag stands there with which attributes, values aside."""
    return Counter((tag, tuple(sorted(attributes))) for tag, attributes in Page(html).elements)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: toy_run(folder / name, name) for name in ("mff", "none")}


@pytest.fixture
def run(runs: dict[str, Path], tmp_path: Path) -> Path:
    """A run of its own, to be spoilt."""
    return Path(shutil.copytree(runs["mff"], tmp_path / "run"))


@pytest.fixture(scope="module")
def single(runs: dict[str, Path]) -> str:
    return write_report([runs["mff"]], runs["mff"] / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def comparison(runs: dict[str, Path]) -> str:
    out = runs["mff"].parent / "compare.html"
    return write_report([runs["mff"], runs["none"]], out).read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["single", "comparison"])
def test_the_page_loads_nothing_and_runs_no_script(kind: str, request: pytest.FixtureRequest) -> None:
    html = request.getfixturevalue(kind)
    page = Page(html)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {
        "script",
        "link",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "audio",
        "video",
        "source",
    }
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "srcset", "poster", "action", "data", "xlink:href", "background"):
            if name in attributes:
                assert re.match(r"data:image/png;base64,|#", attributes[name]), (tag, name)
    style = "".join(data for tag, data in page.texts if tag == "style")
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"https?://", html)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline';")


@pytest.mark.parametrize("kind", ["single", "comparison"])
def test_the_page_is_well_formed_and_accessible(kind: str, request: pytest.FixtureRequest) -> None:
    page = Page(request.getfixturevalue(kind))
    assert page.faults == []
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in page.all("a")} <= set(ids)
    assert page.all("html") == [{"lang": "en"}]
    assert all(a["alt"].strip() and a["width"] and a["height"] for a in page.all("img"))
    assert len(page.all("img")) > 20
    assert all(a.get("aria-hidden") or (a["role"] == "img" and a["aria-label"]) for a in page.all("svg"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert all("scope" in a for a in page.all("th"))


def test_the_page_shows_what_the_run_holds(single: str) -> None:
    text = " ".join(" ".join(data for _, data in Page(single).texts).split())
    for phrase in (
        "Steps 40",
        "Images seen 2 560",
        "70.0 %",
        "20.0 points over raw pixels (50.0 %)",
        "75 % were hidden",
        "per-patch normalisation is undone with the mean and deviation of the true patch",
        "visible patches are pasted",
        "The learning rates add up to 0.08 so far. Multiplied by logit_lr_scale 30",
        "block 0",
        "block 3",
        "20 files, met 2 times",
        "encoder.patch_size",
    ):
        assert phrase in text, phrase


def change(run: Path, group: str, **fields: object) -> Path:
    """Another recipe for a run."""
    content = yaml.safe_load(Run(run).recipe_file.read_text())
    content["recipe"][group] |= fields
    Run(run).recipe_file.write_text(yaml.safe_dump(content))
    return run


def text_of(html: str) -> str:
    return " ".join(Page(html).text.split())


def test_captions_name_the_runs_that_they_hold_for(runs: dict[str, Path], run: Path, tmp_path: Path) -> None:
    change(run, "target", norm_pix=False, low_pass=0.5)
    index = run / "pictures" / "index.json"
    content = read_json(index)
    content["facts"] |= {"hidden": 0.5, "pool": 7, "channels": "channel 1 of 2"}
    write_json(index, {**content, "step": 80})
    text = text_of(write_report([runs["mff"], run], tmp_path / "c.html").read_text(encoding="utf-8"))
    for phrase in (
        "75\u202f% (mff), 50\u202f% (run) were hidden",
        "and its content is predicted (mff); a low-passed target has no fine detail (run)",
        "Shown: channel 1 of 2 (run).",
        "As of step 40 (mff), step 80 (run).",
        "among 20 (mff), 7 (run) images",
    ):
        assert " ".join(phrase.split()) in text, phrase


def test_captions_name_no_run_where_all_agree(comparison: str) -> None:
    text = text_of(comparison)
    for phrase in ("75\u202f% were hidden", "and its content is predicted), and", "As of step 40."):
        assert " ".join(phrase.split()) in text, phrase


def test_the_words_on_weights_follow_the_pooling(runs: dict[str, Path], run: Path, tmp_path: Path) -> None:
    change(run, "fusion", pooling="attention")
    attention = text_of(write_report([run], tmp_path / "a.html").read_text(encoding="utf-8"))
    average = text_of(write_report([runs["mff"]], tmp_path / "b.html").read_text(encoding="utf-8"))
    assert "a mean over heads, tokens and images" in attention
    assert "all start equal" not in attention
    assert "Sum of learning rates" not in attention
    assert "all start equal" in average
    assert "a mean over heads" not in average


def test_looks_and_bias_are_drawn_where_a_run_logged_them(run: Path, single: str, tmp_path: Path) -> None:
    rows = [toy_row(step, 4) for step in range(10, 50, 10)]
    for step, value in ((20, 11.5), (40, 23.0)):
        rows[step // 10 - 1] |= {"rankme": value, "knn_top1": value / 100}
    for row in rows:
        row |= {
            f"bias_{what}_{name}": 0.4 for what in ("weight", "share") for name in ("first_half", "centre")
        }
    Run(run).metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    html = write_report([run, run], tmp_path / "c.html").read_text(encoding="utf-8")
    charts = [a["aria-label"] for a in Page(html).all("svg") if "aria-label" in a]
    for start in ("RankMe. ", "kNN top-1. ", "Mass on the first half. ", "Centre of mass. "):
        assert any(label.startswith(start) for label in charts), start
        assert start not in single
    rankme = next(label for label in charts if label.startswith("RankMe. "))
    assert re.search(r"11\.5 at 20, 23(\.0)? at 40", rankme)
    text = text_of(html)
    assert "target. RankMe is" in text
    assert "centre of mass is 0" in text
    assert "RankMe" not in text_of(single)
    assert "centre of mass" not in text_of(single)


def test_only_a_page_in_progress_reloads_itself(runs: dict[str, Path], tmp_path: Path, single: str) -> None:
    live = write_report([runs["mff"]], tmp_path / "live.html", refresh_seconds=15).read_text(encoding="utf-8")
    refreshes = [
        [a for a in Page(html).all("meta") if a.get("http-equiv") == "refresh"] for html in (live, single)
    ]
    assert refreshes == [[{"http-equiv": "refresh", "content": "15"}], []]
    done = str(round(4 / toy_recipe().train.epochs, 3))  # the last row of the log is epoch 4
    assert Page(live).all("progress") == [
        {"max": "1", "value": done, "aria-label": "Share of the run that is done"}
    ]


def test_a_comparison_lists_exactly_the_recipe_fields_that_differ(
    runs: dict[str, Path], run: Path, tmp_path: Path
) -> None:
    a, b = runs["mff"], run
    content = yaml.safe_load(Run(b).recipe_file.read_text())
    content["recipe"]["optim"]["base_lr"] = 0.125
    content["recipe"]["fusion"]["layers"] = [1, 2, 3]
    content["recipe"]["train"]["seed"] = True  # 0 and False, 1 and True are different values
    content["source"] = "elsewhere"
    Run(b).recipe_file.write_text(yaml.safe_dump(content))
    html = write_report([a, b], tmp_path / "c.html").read_text(encoding="utf-8")
    table = re.search(r'<table class="differences">.*?</table>', html, re.S)
    assert table
    rows = re.findall(r"<code>(.*?)</code></th><td>(.*?)</td><td>(.*?)</td>", table[0])
    assert rows == [
        ("fusion.layers", "0 1 2 3", "1 2 3"),
        ("optim.base_lr", "0.001", "0.125"),
        ("source", "name 0", "elsewhere"),
        ("train.seed", "0", "true"),
    ]
    assert "differ in 4 fields" in html


def test_a_pair_that_differs_in_the_fusion_alone_is_called_fair(comparison: str) -> None:
    assert "The recipes differ in the fusion and in nothing else: a fair pair." in comparison


def test_equal_recipes_are_called_equal(runs: dict[str, Path], tmp_path: Path) -> None:
    html = write_report([runs["mff"], runs["mff"]], tmp_path / "c.html").read_text(encoding="utf-8")
    assert "The recipes are equal in every field." in html
    assert html.count(f"<bdi>{runs['mff']}</bdi>") > 2, (
        "two runs of the same name are told apart by their paths"
    )


def test_shared_pictures_stand_once_in_a_comparison(comparison: str) -> None:
    labels = re.findall(r"<figcaption>(original|masked input|reconstruction)", comparison)
    assert Counter(labels) == {"original": 6, "masked input": 3, "reconstruction": 6}


MISSING = ["recipe.yaml", "environment.json", "metrics.jsonl", "results", "pictures", "skipped.json"]


@pytest.mark.parametrize("missing", MISSING)
def test_the_page_does_without_any_one_piece(missing: str, run: Path, tmp_path: Path) -> None:
    (run / missing).rename(tmp_path / "aside")
    page = Page(write_report([run], tmp_path / "r.html").read_text(encoding="utf-8"))
    assert page.faults == []
    assert page.all("ul") == [] or missing != "skipped.json"


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    Run(tmp_path / "new").start(toy_recipe(), DataFacts("photos", 10, "0" * 64), None)
    page = Page(write_report([tmp_path / "new"], tmp_path / "r.html").read_text(encoding="utf-8"))
    assert page.faults == []
    assert "Nothing has been logged yet" in page.text


BROKEN = {
    "metrics.jsonl": b'{"step": 10, "loss": NaN, "lr": null}\n{"step": 20, "loss": 0.5, "fusion_weights": [0.5, 0.5]}\n'
    b'{"step": 30, "loss": Infinity, "fusion_weights": [null, 1]}\nnot json\n\xff\xfe\n[1]\n{"step": "x"}\n{"step": 40, "lo',
    "recipe.yaml": b"recipe: [unclosed\n\t&",
    "environment.json": b"[1, 2",
    "results/knn-data.json": b'{"protocol": "knn", "rows": [{"encoder": "trained", "top1": NaN}]}',
    "results/linear-data.json": b'["not a result"]',
    "pictures/index.json": b'{"step": 1, "restored": [{"name": "x"}]}',
    "skipped.json": b'{"a": 1}',
}


def test_broken_files_are_left_out_and_said_so(run: Path, tmp_path: Path) -> None:
    for name, content in BROKEN.items():
        (run / name).write_bytes(content)
    html = write_report([run], tmp_path / "r.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.faults == []
    assert "nan" not in "".join(a["points"] for a in page.all("polyline"))
    notes = re.search(r'<ul class="notes">.*?</ul>', html, re.S)
    assert notes
    assert len(re.findall("<li>", notes[0])) == len(BROKEN)


def test_every_valid_line_of_a_growing_log_is_drawn(run: Path, tmp_path: Path) -> None:
    rows = [json.dumps(toy_row(step, 4)) for step in range(1, 6)]
    (run / "metrics.jsonl").write_text("\n".join(rows) + '\n{"step": 6, "lo')
    html = write_report([run], tmp_path / "r.html").read_text(encoding="utf-8")
    assert 'class="notes"' not in html, "a line that is being written is nothing to complain about"
    loss = Page(html).all("polyline")[0]["points"]
    assert len(loss.split()) == 5


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/passwd", "secret.txt", "link.png", "..", "", 7])
def test_a_strangers_index_cannot_pull_other_files_into_the_page(
    name: object, run: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes((run / "pictures" / "original-0.png").read_bytes())
    (run / "pictures" / "link.png").symlink_to(secret)
    (run / "pictures" / "secret.txt").write_text("secret")
    index = run / "pictures" / "index.json"
    content = read_json(index)
    content["restored"][0]["original"] = name
    write_json(index, content)  # a stranger can seal as lamina does
    html = write_report([run], tmp_path / "r.html").read_text(encoding="utf-8")
    assert (
        "the set of pictures could not be read" in html
        or "the set of pictures was left out: link.png" in html
    )
    assert "<img" not in html


def test_the_old_page_stays_where_the_new_one_cannot_be_made(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = write_report([runs["mff"]], tmp_path / "r.html")
    before = out.read_bytes()

    def fail(self: Path, target: Path) -> Path:
        raise OSError("no room")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no room"):
        write_report([runs["mff"]], out)
    assert out.read_bytes() == before
    assert os.listdir(tmp_path) == ["r.html"]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LaminaError, match="is not a run"):
        write_report([tmp_path], tmp_path / "r.html")
    with pytest.raises(LaminaError, match="no run"):
        write_report([], tmp_path / "r.html")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run whose every name is an attack, its own folder's too, and its page."""
    folder = tmp_path_factory.mktemp("hostile")
    run = toy_run(folder / PAYLOADS[3].replace("/", "-"), names=PAYLOADS)
    out = write_report([run], folder / "r.html")
    return out, out.read_text(encoding="utf-8")


def test_hostile_names_change_no_element(hostile: tuple[Path, str], single: str) -> None:
    _, html = hostile
    page = Page(html)
    assert page.faults == []
    assert elements(html) == elements(single)
    for payload in PAYLOADS:
        assert visible(payload) in page.text
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f\x7f]", html)


def test_hostile_names_in_a_comparison(
    hostile: tuple[Path, str], runs: dict[str, Path], comparison: str
) -> None:
    folder = hostile[0].parent
    others = [
        toy_run(folder / f"{i}{PAYLOADS[i].replace('/', '-')}", k, PAYLOADS)
        for i, k in ((4, "mff"), (5, "none"))
    ]
    html = write_report(others, folder / "c.html").read_text(encoding="utf-8")
    assert Page(html).faults == []
    assert elements(html) == elements(comparison)


def test_the_page_escapes_by_default() -> None:
    template = Path(page_module.__file__).parent / "templates"
    for file in template.iterdir():
        assert "|safe" not in file.read_text().replace(" ", ""), file
        assert "Markup" not in file.read_text(), file


@pytest.fixture(scope="module")
def browser() -> str:
    found = [
        shutil.which(name)
        for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    ]
    path = next((path for path in found if path), None)
    if path is None:
        pytest.skip("no Chromium or Chrome on this machine")
    return path


def dump(browser: str, page: Path, folder: Path, width: int = 1280) -> str:
    """The DOM after loading, as headless Chromium sees it."""
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-sync",
    ]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"]
    flags += [
        f"--user-data-dir={folder}",
        f"--window-size={width},900",
        "--virtual-time-budget=2000",
        "--dump-dom",
    ]
    done = subprocess.run([browser, *flags, page.as_uri()], capture_output=True, timeout=120, check=True)
    return done.stdout.decode("utf-8", "replace")


@pytest.mark.browser
@pytest.mark.slow
def test_chromium_runs_no_script_of_a_hostile_run(
    hostile: tuple[Path, str], browser: str, tmp_path: Path
) -> None:
    control = tmp_path / "control.html"
    control.write_text(f"<!doctype html><p>{PAYLOADS[3]}</p>")
    assert "data-pwned" in dump(browser, control, tmp_path / "profile"), (
        "the harness sees an attack that works"
    )
    html = dump(browser, hostile[0], tmp_path / "profile")
    assert elements(html)[("html", ("lang",))] == 1
    assert not Page(html).all("script")
    for tag, attributes in Page(html).elements:
        assert not [name for name in attributes if name.startswith("on") or name == "data-pwned"], tag
    # Chromium adds <tbody> and the like only where the source leaves them out: nothing may differ.
    assert elements(html) == elements(hostile[1])


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["single", "comparison", "hostile"])
def test_the_page_does_not_scroll_sideways_on_a_phone(
    kind: str, browser: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    given = request.getfixturevalue(kind)
    html = given[1] if kind == "hostile" else given
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    html = html.replace("<details", "<details open")
    script = "<script>document.title = innerWidth + ' ' + document.documentElement.scrollWidth</script>"
    page = tmp_path / "phone.html"
    page.write_text(html.replace("</body>", script + "</body>"), encoding="utf-8")
    title = re.search(r"<title>(\d+) (\d+)</title>", dump(browser, page, tmp_path / "profile", 390))
    assert title
    assert int(title[2]) <= int(title[1]) <= 500


def test_scores_of_runs_stand_side_by_side(runs: dict[str, Path], tmp_path: Path) -> None:
    """Two runs with a score each, one of them of a protocol that the other has not."""
    for name, value in (("mae", 0.5), ("mff", 0.75)):
        shutil.copytree(runs["mff"], tmp_path / name)
        run = tmp_path / name
        for seed in range(2):
            score = Score("finetune", name, 1, "photos", "top1", value + 0.01 * seed, None, 10, 20, seed)
            score.save(run / "results" / f"finetune-photos-seed{seed}.json")
    (tmp_path / "mff" / "results" / "broken.json").write_text('{"kind": "score"}')
    html = write_report([tmp_path / "mae", tmp_path / "mff"], tmp_path / "both.html").read_text()
    # Of one degree of freedom 12.706 x 0.01 / 2, on the logit scale: logit(0.505) ± 0.0635 / (0.505 x 0.495).
    assert "50.5 ± 6.3" in html
    assert "<strong>75.5 (68.6 to 81.3)</strong>" in html
    assert "finetune: mff minus mae +25.0 ± 0.0 points (2 seeds)." in html
    assert "broken.json is not a result" in html
    one = write_report([tmp_path / "mae"], tmp_path / "one.html").read_text()
    assert 'id="downstream"' in one


@pytest.mark.parametrize(
    ("trained", "words"),
    [
        (0.281, "21.9 points under raw pixels (50.0"),
        (0.5, "equal to raw pixels (50.0"),
        (0.7, "20.0 points over raw"),
    ],
)
def test_a_probe_below_its_baseline_is_not_over_it(trained: float, words: str, tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run")
    for file in (run / "results").iterdir():
        content = json.loads(file.read_text())
        content["rows"][0]["top1"] = trained
        file.write_text(json.dumps(content))
    html = write_report([run], tmp_path / "r.html").read_text()
    assert words in html
    assert "\N{MINUS SIGN}21.9 points over" not in html
