"""The shape of the code: imports run one way, files and functions stay small, nothing unpickles."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "src" / "lamina"
FILES = sorted(ROOT.rglob("*.py"))

BASE = {
    "errors",
    "text",
    "console",
    "statistics",
    "batch",
    "tokens",
    "rng",
    "protocols",
    "options",
    "files",
    "modes",
    "terminal",
    "locking",
    "ranges",
    "plain_files",
    "records",
}
PARTS = {"masking", "encoder", "fusion", "decoder", "losses", "targets"}
ALLOWED = {
    **{base: {"errors"} for base in BASE},
    "records": {"errors", "files", "plain_files"},
    "console": {"text"},
    **dict.fromkeys(PARTS, BASE | {"frozen"}),
    "mim": BASE | PARTS,
    "init": BASE,
    "frozen": BASE,
    "tensor_files": BASE | {"frozen"},
    "tokenizer": BASE | {"frozen", "tensor_files", "data", "train"},
    "filling": BASE | PARTS | {"mim"},
    "methods": BASE | PARTS | {"mim", "init"},
    "cmae": BASE | PARTS | {"mim"},
    "supervised": BASE | PARTS | {"frozen"},
    "corruptions": {"errors", "rng", "batch"},
    "data": BASE | {"corruptions"},
    "train": BASE,
    "recipes": BASE | PARTS | {"data", "train", "cmae", "supervised"},
    "build": BASE | PARTS | {"frozen", "mim", "cmae", "supervised", "init", "recipes"},
    "memory": BASE | PARTS | {"mim", "recipes", "build"},
    "resumable_folder": BASE | {"train"},
    "runs": BASE | {"mim", "recipes", "build", "train", "resumable_folder"},
    "interop": BASE
    | {
        "tensor_files",
        "cmae",
        "supervised",
        "encoder",
        "decoder",
        "fusion",
        "mim",
        "init",
        "recipes",
        "build",
        "runs",
        "train",
    },
    "guides": BASE | PARTS | {"frozen", "runs", "supervised", "tokenizer", "recipes", "interop"},
    "monitor": BASE | {"supervised", "fusion", "mim", "data", "train"},
}
UP = [
    "evaluate",
    "embedding",
    "analyze",
    "watching",
    "pretraining",
    "tokenizing",
    "downstream",
    "studies",
    "report",
    "api",
    "analyzing",
    "listing",
    "arguments",
    "arguments_downstream",
    "demo",
    "bars",
    "commands_evaluate",
    "commands",
    "commands_analyze",
    "commands_downstream",
    "commands_dense",
    "commands_study",
    "telling",
    "cli",
    "__main__",
]


def layer(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(file: Path) -> set[str]:
    """Parts of lamina that a file names in an import statement."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lamina":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("lamina.")}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_run_one_way(file):
    name = layer(file)
    if name == "__init__":
        return
    known = set(ALLOWED) | set(UP)
    assert name in known, f"say in this test what {name} may import"
    allowed = ALLOWED.get(name)
    if allowed is None:  # the upper layers: everything below them
        allowed = set(ALLOWED) | set(UP[: UP.index(name)])
    assert imported(file) & known - {name} <= allowed


def test_training_knows_no_method_and_parts_no_sibling():
    for file in FILES:
        if layer(file) in PARTS | {"train", "data"}:
            assert not imported(file) & (PARTS | {"mim", "methods", "evaluate"}) - {layer(file)}, file


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_files_and_functions_stay_small(file):
    text = file.read_text()
    assert text.count("\n") <= 320
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = [
                n for n in node.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))
            ]
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 45, f"{node.name} has {lines} lines"


def test_nothing_unpickles():
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "dill", "cloudpickle", "joblib", "shelve"} & set(names), file
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                safe = {k.arg: k.value for k in node.keywords}.get("weights_only")
                assert isinstance(safe, ast.Constant), file
                assert safe.value is True, file
