"""Writes a page from a template and its content."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lamina.core.files import write_atomically
from lamina.evaluate.results import encoder_name
from lamina.report.class_tables import class_tables
from lamina.report.format import moment, number, percent, setting, visible


def write_page(file: Path, template: str, page: Mapping[str, Any]) -> Path:
    """Write a template with `page` filled in, lamina's version and the time added, and return the file.

    The file is replaced at once, so that a reader never sees half a page.

    Raises:
        OSError: where it cannot be written.
    """
    made = {"version": metadata.version("lamina"), "written": moment(time.time())}
    html = _templates().get_template(template).render(page={**page, **made})
    write_atomically(file, html.encode("utf-8", "backslashreplace"))
    return file


@cache
def _templates() -> Environment:
    """The templates, compiled once: a live report uses them again and again."""
    environment = Environment(
        loader=PackageLoader("lamina.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "visible": visible,
        "number": number,
        "percent": percent,
        "setting": setting,
        "class_tables": class_tables,
        "encoder_name": encoder_name,
    }
    return environment
