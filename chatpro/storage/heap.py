"""Memory that the engine gives back, while old text is taken out of its file: handed to the system at once instead of being used again as it is.

A block that DuckDB writes is not filled to its last byte, and it does not clear what lies between: there stands whatever the memory held before,
which in a purge is the very text that has to go. Seen in one run of seventeen with text that was not packed, a message at a time.
Memory that the system hands out anew is empty. The engine's allocator (jemalloc, in its library on Linux) can be told so by its own documented
call; where it isn't there, nothing is done, and the chance remains.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import _duckdb

KINDS = ("dirty", "muzzy")
ALL_ARENAS = 4096
"""What stands for all arenas, where a command takes that (MALLCTL_ARENAS_ALL in jemalloc's manual)."""


@contextmanager
def handed_back() -> Iterator[bool]:
    """While it lasts, freed memory goes back to the system at once. False where this engine's allocator can't be told."""
    call = _control()
    if call is None:
        yield False
        return
    usual = {kind: _set(call, f"arenas.{kind}_decay_ms", 0) for kind in KINDS}
    _all_arenas(call, dict.fromkeys(KINDS, 0))
    call(f"arena.{ALL_ARENAS}.purge".encode(), None, None, None, 0)
    try:
        yield True
    finally:
        for kind, milliseconds in usual.items():
            _set(call, f"arenas.{kind}_decay_ms", milliseconds)
        _all_arenas(call, usual)


@cache
def _control() -> Any:
    """jemalloc's `mallctl` as the engine's library has it, None where it has none."""
    with suppress(OSError, AttributeError):
        call = ctypes.CDLL(_duckdb.__file__).duckdb_je_mallctl
        call.restype = ctypes.c_int
        call.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
        return call
    return None


def _all_arenas(call: Any, decays: dict[str, int]) -> None:
    """Arenas that were not used yet refuse, and begin with what holds for new ones."""
    arenas, size = ctypes.c_uint(0), ctypes.c_size_t(ctypes.sizeof(ctypes.c_uint))
    call(b"arenas.narenas", ctypes.byref(arenas), ctypes.byref(size), None, 0)
    for n in range(arenas.value):
        for kind, milliseconds in decays.items():
            _set(call, f"arena.{n}.{kind}_decay_ms", milliseconds)


def _set(call: Any, name: str, milliseconds: int) -> int:
    """How long freed pages are kept. Returns how long it was."""
    before, size, after = ctypes.c_ssize_t(-1), ctypes.c_size_t(ctypes.sizeof(ctypes.c_ssize_t)), ctypes.c_ssize_t(milliseconds)
    call(name.encode(), ctypes.byref(before), ctypes.byref(size), ctypes.byref(after), ctypes.sizeof(after))
    return before.value
