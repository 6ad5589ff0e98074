"""The configuration that mmengine writes into checkpoints: Python text, of which only literals are read."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

_MAX_CHARACTERS = 1_000_000
"""Longer texts are not parsed; configurations have a few thousand characters."""


def settings(text: str) -> dict[str, Any]:
    """The top-level names of a configuration with their values: numbers, strings, lists and `dict(...)`.

    Nothing is run: a value that is not a literal is None. A text that is not Python gives nothing.
    """
    if len(text) > _MAX_CHARACTERS:
        return {}
    try:
        body = ast.parse(text).body
        return {
            target.id: _literal(line.value)
            for line in body
            if isinstance(line, ast.Assign)
            for target in line.targets
            if isinstance(target, ast.Name)
        }
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def group(mapping: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """The group of settings below `names`; empty where there is none."""
    for name in names:
        inner = mapping.get(name)
        if not isinstance(inner, Mapping):
            return {}
        mapping = inner
    return mapping


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {k.value: _literal(v) for k, v in pairs if isinstance(k, ast.Constant)}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {word.arg: _literal(word.value) for word in node.keywords if word.arg is not None}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _literal(node.operand)
        return -value if isinstance(value, int | float) else None
    return None
