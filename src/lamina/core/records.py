"""JSON and YAML that lamina writes and reads back, with a SHA-256 of the content that shows any damage.

What is read is bounded, so that no file of a stranger takes the memory or the stack.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from lamina.core.files import json_text, write_atomically
from lamina.core.plain_files import CHANGED, MOST_BYTES, RESTORE, SEAL, DamagedFile, read_plain, read_text

MOST_YAML_BYTES = 1 << 20
MOST_YAML_NODES = 200_000
_YAML_SEAL_START = "# sha256 of the lines below"
_YAML_SEAL = re.compile(_YAML_SEAL_START + r": ([0-9a-f]{64})\n")


def write_json(file: Path, content: Mapping[str, Any], indent: int = 1) -> None:
    """Replace a file by a JSON object with the digest of its content. Raises OSError."""
    write_atomically(file, to_json(content, indent))


def to_json(content: Mapping[str, Any], indent: int = 1) -> str:
    """The text that `write_json` writes."""
    plain = as_json(content)
    sealed = {**plain, SEAL: _digest(plain)}
    text = json_text(sealed, indent)
    # Names of files that are no UTF-8 can only be written as escapes.
    return text if _is_unicode(text) else json.dumps(sealed, indent=indent) + "\n"


def as_json(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content as JSON holds it: lists in place of tuples, text for all keys."""
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def read_json(file: Path, most_bytes: int = MOST_BYTES, *, links: bool = False, mend: str = RESTORE) -> Any:
    """What a JSON file holds, without the digest; one of before there were digests is taken as it is.

    Raises:
        FileNotFoundError: where there is none.
        DamagedFile: where it is no plain file, no JSON, or has another digest than it says.
    """
    content = read_plain(file, most_bytes, links=links, mend=mend)
    try:
        return verified(parse_json(content))
    except ValueError as error:
        raise DamagedFile(file, str(error), mend) from None


def read_object(
    file: Path, most_bytes: int = MOST_BYTES, *, links: bool = False, mend: str = RESTORE
) -> dict[str, Any]:
    """As `read_json`, of a file that must hold a JSON object."""
    content = read_json(file, most_bytes, links=links, mend=mend)
    if not isinstance(content, dict):
        raise DamagedFile(file, f"it holds a {type(content).__name__}, not an object", mend)
    return content


@contextmanager
def expected_content(file: Path, mend: str = RESTORE) -> Iterator[None]:
    """Within it errors of a content that does not have the expected form become a `DamagedFile`."""
    try:
        yield
    except DamagedFile:
        raise
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DamagedFile(file, "it is not what lamina writes", mend) from None


def parse_json(text: bytes | str) -> Any:
    """Raises `ValueError`, with what is wrong in a few words, for a text that is no JSON, is nested deeper
    than Python's stack, or has whole numbers of more than 64 bits."""
    try:
        return json.loads(text, parse_int=_int)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is no UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON ({error.msg}, line {error.lineno})") from None


def verified(content: Any) -> Any:
    """The content without its digest, if there is one; raises `ValueError` where that is another."""
    if not isinstance(content, dict) or not content:
        return content
    seal = SEAL if SEAL in content else next(reversed(content))  # it stands last, be its name damaged
    plain = {name: value for name, value in content.items() if name != seal}
    if content[seal] == _digest(plain):
        return plain
    if seal == SEAL:
        raise ValueError(CHANGED)
    return content


def to_yaml(content: Mapping[str, Any]) -> str:
    """YAML with a first line that holds the digest of all below it."""
    text = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)
    return f"{_YAML_SEAL_START}: {_sha256(text)}\n{text}"


def read_yaml(file: Path, *, links: bool = False, mend: str = RESTORE) -> Any:
    """What a YAML file holds; one without the line of `to_yaml` is taken as it is.

    Raises:
        FileNotFoundError: where there is none.
        DamagedFile: where it is no plain file, no YAML, or has another digest than it says.
    """
    try:
        return parse_yaml(read_text(file, MOST_YAML_BYTES, links=links, mend=mend))
    except ValueError as error:
        if isinstance(error, DamagedFile):
            raise
        raise DamagedFile(file, str(error), mend) from None


def parse_yaml(text: str, verify: bool = True, kind: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """Raises `ValueError`, with what is wrong in a few words, for a text that is no YAML, has another digest
    than its first line says (unless `verify` is off), or becomes too large or too deep once its aliases are
    followed."""
    match = _YAML_SEAL.match(text)
    seen = match is not None and match[1] == _sha256(text[match.end() :])
    if verify and text.startswith(_YAML_SEAL_START) and not seen:
        raise ValueError(f"{CHANGED}; to take your own change, delete the first line")
    try:
        loader = kind(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _size(node, {}, set()) > MOST_YAML_NODES:
                raise ValueError("its aliases make it too large")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except yaml.YAMLError as error:
        raise ValueError(f"it is no YAML ({' '.join(str(error).split())[:200]})") from None


def _size(node: yaml.Node, known: dict[int, int], above: set[int]) -> int:
    """How many nodes there are when each alias stands for all that it names."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in above:
        raise ValueError("an alias in it names what it is a part of")
    if id(node) not in known:
        above.add(id(node))
        mapping = isinstance(node, yaml.MappingNode)
        parts = [part for pair in node.value for part in pair] if mapping else node.value
        known[id(node)] = 1 + sum(_size(part, known, above) for part in parts)
        above.remove(id(node))
    return known[id(node)]


def _int(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**64:
        raise ValueError(f"it has a whole number of {len(text)} digits")
    return int(text)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _digest(plain: Mapping[str, Any]) -> str:
    return _sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(content: dict[str, Any]) -> str:
    """JSON text that holds its own SHA-256, so that no changed byte of it goes unseen."""
    body = json.dumps(content, indent=1, sort_keys=True)
    seal = hashlib.sha256(body.encode()).hexdigest()
    return json.dumps({**content, "seal": seal}, indent=1, sort_keys=True) + "\n"


def unsealed(text: bytes) -> dict[str, Any] | None:
    """The content of a `sealed` text; None where a byte of it was changed."""
    try:
        content = parse_json(text)
        content.pop("seal")
        intact = sealed(content).encode() == text
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    return dict(content) if intact else None
