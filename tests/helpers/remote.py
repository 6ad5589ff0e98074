"""A remote in memory that counts requests, and fails when it is told to."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, ClassVar


class Remote:
    """What the remote was asked for, and what it does."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, int]] = []
        """Of each request the method, the path and the number of bytes that were given."""
        self.fails: Callable[[str, str], Exception | None] = lambda method, path: None
        """The error for a request, by method and path."""

    def flaky(self, share: float, seed: int = 0) -> None:
        """From now on this share of the requests fails, in one of the ways in which remotes do."""
        draw = random.Random(seed)
        kinds = (OSError("reset by peer"), TimeoutError(), ConnectionError("broken pipe"), EOFError("cut"))
        self.fails = lambda method, path: draw.choice(kinds) if draw.random() < share else None

    def n(self, method: str) -> int:
        """How often that was asked for."""
        return sum(asked == method for asked, _, _ in self.requests)

    def n_bytes(self) -> int:
        """How many bytes were given."""
        return sum(n for _, _, n in self.requests)


def register(remote: Remote, protocol: str = "counted") -> Any:
    """The file system in memory under a protocol of its own."""
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    class Counted(MemoryFileSystem):  # type: ignore[misc]
        cachable = False
        store: ClassVar[dict[str, Any]] = {}
        pseudo_dirs: ClassVar[list[str]] = [""]

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return str(MemoryFileSystem._strip_protocol(path.replace(f"{protocol}://", "memory://", 1)))

        def _asked(self, method: str, path: str, found: Callable[[], Any]) -> Any:
            error = remote.fails(method, path)
            given = None if error else found()
            size = len(given) if isinstance(given, bytes) else 0
            remote.requests.append((method, path, size))
            if error:
                raise error
            return given

        def cat_file(self, path: str, start: int | None = None, end: int | None = None, **more: Any) -> bytes:
            whole = super().cat_file
            return self._asked("cat_file", path, lambda: whole(path, start, end))

        def info(self, path: str, **more: Any) -> Any:
            of = super().info
            return self._asked("info", path, lambda: of(path))

        def find(self, path: str, **more: Any) -> Any:
            of = super().find
            return self._asked("find", path, lambda: of(path, **more))

    Counted.protocol = (protocol,)
    fsspec.register_implementation(protocol, Counted, clobber=True)
    return Counted()
