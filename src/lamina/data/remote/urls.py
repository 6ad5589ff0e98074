"""What is a URL, and the file system of fsspec that opens it in this process."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from lamina.core.errors import LaminaError
from lamina.core.text import printable

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
"""A protocol has two letters at least: one letter is a drive of Windows."""
_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("http", "https"), "aiohttp"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
    "hf": "huggingface_hub",
    "oss": "ossfs",
    "webdav": "webdav4",
}


def is_url(spec: object) -> bool:
    """Whether a text names something at a remote."""
    return isinstance(spec, str) and _URL.match(spec) is not None


def is_http(url: str) -> bool:
    """Whether a URL is one of the web, in which a question mark is no wildcard."""
    return url.lower().startswith(("http://", "https://"))


def path_of(url: str) -> str:
    """The URL without what may follow the name of the file in one of the web: `?X-Amz-Signature=...`."""
    return urlsplit(url)._replace(query="", fragment="").geturl() if is_http(url) else url


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it, for this process and thread: fsspec keeps one for each.

    Credentials are found as the package of the protocol finds them: its environment variables and files, and
    fsspec's configuration.

    Raises:
        LaminaError: where a package is missing, or the protocol is not known.
    """
    protocol = _URL.match(url)[1].lower()  # type: ignore[index]
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise LaminaError(f"{printable(url)} needs fsspec; pip install 'lamina[remote]'") from None
    try:
        found: tuple[Any, str] = url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        how = f"the package {package}; pip install {package}" if package else f"a package: {error}"
        raise LaminaError(f"{protocol}:// needs {how}") from None
    except ValueError as error:
        raise LaminaError(f"{printable(url)} cannot be opened: {printable(str(error))}") from None
    return found
