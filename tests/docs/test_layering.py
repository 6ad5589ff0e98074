"""The shape of the code: imports run one way, files and functions stay small, nothing unpickles."""

import ast
import graphlib
from pathlib import Path

import architecture

ROOT = architecture.SOURCE
FILES = sorted(ROOT.rglob("*.py"))
BELOW: dict[str, set[str]] = {}
"""What each package may import."""
for _height, _floor in enumerate(architecture.FLOORS):
    _lower = {name for floor in architecture.FLOORS[:_height] for name in floor.names}
    for _name in _floor.names:
        BELOW[_name] = _lower | (set(_floor.names) if _floor.together else {_name})


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


def test_every_package_has_one_floor():
    names = [name for floor in architecture.FLOORS for name in floor.names]
    assert len(names) == len(set(names))
    assert set(names) == {architecture.package(file) for file in FILES} - {"__init__"}


def test_imports_run_one_way():
    wrong = [
        f"{file.relative_to(ROOT)}: {other}"
        for file in FILES
        if (name := architecture.package(file)) != "__init__"
        for other in imported(file) & set(BELOW) - BELOW[name]
    ]
    assert not wrong


def module(file: Path) -> str:
    """The dotted name of a file."""
    parts = ("lamina", *file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def files_imported(file: Path, known: dict[str, Path]) -> set[str]:
    """Modules of lamina that a file imports anywhere: in functions and for types alone too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in known else node.module for name in inside}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & set(known)


def test_no_file_imports_itself_through_others():
    known = {module(file): file for file in FILES}
    imports = {name: files_imported(file, known) for name, file in known.items()}
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        raise AssertionError(f"circular import: {' -> '.join(error.args[1])}") from None


def test_the_page_of_the_architecture_is_up_to_date():
    assert architecture.PAGE.read_text() == architecture.page(), "run python tools/architecture.py"


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's body without its docstring."""
    body = function.body[ast.get_docstring(function) is not None :]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_files_and_functions_stay_small():
    long = [str(file.relative_to(ROOT)) for file in FILES if file.read_text().count("\n") > 320]
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and length(node) > 45:
                long.append(f"{file.relative_to(ROOT)}: {node.name}")
    assert not long


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
