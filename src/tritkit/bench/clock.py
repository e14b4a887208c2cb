"""How fast this CPU's clock runs now, and how many int8 products a core can do a cycle: both measured.

A few instructions are written to memory and run: additions that each wait for the one before (one cycle each), and
int8 dot products, of vectors and of tiles (AMX), that wait for nothing. Only on x86-64 Linux; elsewhere nothing is
known.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

_READ_WRITE, _READ_EXECUTE = 3, 5
_PRIVATE_ANONYMOUS = 0x22
_ADDS = 64  # a pass of the loop
_CLOCK_PASSES, _DOT_PASSES, _TILE_PASSES = 40_000, 40_000, 5_000  # about 0.7, 0.3 and 0.1 ms
_TRIALS = 15
_KNOWN_RATES = (32, 64, 128, 256, 512, 1024, 2048)
_TOLERANCE = 0.08  # of a known rate: loop overhead and noise

_ZERO_EAX_ONE_EDX = bytes.fromhex("31c0 ba01000000")
_ADD_RAX_RDX = bytes.fromhex("4801d0")
_DEC_RDI = bytes.fromhex("48ffcf")
_JNZ = bytes.fromhex("0f85")
_END = bytes.fromhex("c5f877 c3")  # vzeroupper; ret
_RET = bytes.fromhex("c3")
_RELEASE_TILES = bytes.fromhex("c4e27849c0 c3")  # tilerelease; ret
_LOAD_TILES = bytes.fromhex("c4e2784905")  # ldtilecfg from an address beside it, 32 bits
_TILES = bytes([1, *[0] * 15, *[64, 0] * 8, *[0] * 16, *[16] * 8, *[0] * 8])  # eight, of 16 rows of 64 bytes
_TILE_MACS = 16 * 16 * 64
_ARCH_PRCTL, _ASK_FOR_STATE, _TILE_STATE = 158, 0x1023, 18

Loop = Callable[[int], float]


def hertz() -> float | None:
    """Cycles a second of the CPU this thread runs on, now; None where it cannot be measured."""
    loop = _clock_loop()
    if loop is None:
        return None
    return _CLOCK_PASSES * _ADDS / min(loop(_CLOCK_PASSES) for _ in range(_TRIALS))


def dot_products_per_cycle() -> float | None:
    """int8 multiply-accumulates a cycle that one core's dot product instruction reaches; None if it has none.

    Within 8 % of a power of two from 32 to 2048 the round number is given, else what was measured.
    """
    return _rate(_dot_loop(), _DOT_PASSES)


def tile_products_per_cycle() -> float | None:
    """The same of the tile instructions (AMX), of 16 × 64 codes times 64 × 16; None if this process has none."""
    return _rate(_tile_loop(), _TILE_PASSES)


def products_per_cycle() -> float | None:
    """That of the faster of both; None if this process has neither."""
    return max((rate for rate in (dot_products_per_cycle(), tile_products_per_cycle()) if rate), default=None)


def _rate(found: tuple[Loop, int] | None, passes: int) -> float | None:
    speed = hertz()
    if found is None or speed is None:
        return None
    loop, macs = found
    rate = macs * passes / (min(loop(passes) for _ in range(_TRIALS)) * speed)
    return next((float(known) for known in _KNOWN_RATES if abs(rate / known - 1) < _TOLERANCE), rate)


def cpu_flags() -> frozenset[str]:
    """The CPU's features as Linux names them; empty where they are not known."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), []))


@cache
def _clock_loop() -> Loop | None:
    return _compile(_ZERO_EAX_ONE_EDX, _ADD_RAX_RDX * _ADDS, _RET)


@cache
def _dot_loop() -> tuple[Loop, int] | None:
    """The loop and its multiply-accumulates a pass."""
    flags = cpu_flags()
    if {"avx512f", "avx512_vnni"} <= flags:
        body, macs = b"".join(evex_vpdpbusd(r, 24, 25) for r in range(24)), 24 * 64
    elif "avx_vnni" in flags:
        body, macs = b"".join(vex_vpdpbusd(r, 14, 15) for r in range(14)), 14 * 32
    else:
        return None
    loop = _compile(b"", body, _END)
    return None if loop is None else (loop, macs)


@cache
def _tile_loop() -> tuple[Loop, int] | None:
    """The loop and its multiply-accumulates a pass; None where the system does not let this process have tiles."""
    if not {"amx_tile", "amx_int8"} <= cpu_flags() or not _tiles_allowed():
        return None
    body = b"".join(tdpbusd(r, 6, 7) for r in range(6))
    to_tiles = len(body + _DEC_RDI + _JNZ) + 4 + len(_RELEASE_TILES)
    before = _LOAD_TILES + to_tiles.to_bytes(4, "little")
    loop = _compile(before, body, _RELEASE_TILES + _TILES)
    return None if loop is None else (loop, 6 * _TILE_MACS)


def _tiles_allowed() -> bool:
    """Linux gives a process the registers once it asks."""
    if sys.platform != "linux":
        return False
    return int(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ASK_FOR_STATE, _TILE_STATE)) == 0


def evex_vpdpbusd(target: int, unsigned: int, signed: int) -> bytes:
    """vpdpbusd zmm{target}, zmm{unsigned}, zmm{signed} (EVEX.512.66.0F38.W0 50 /r)."""
    r, r4, x, b = (~target >> 3) & 1, (~target >> 4) & 1, (~signed >> 4) & 1, (~signed >> 3) & 1
    p0 = r << 7 | x << 6 | b << 5 | r4 << 4 | 0b0010
    p1 = (~unsigned & 15) << 3 | 0b101
    p2 = 0b10 << 5 | (~unsigned >> 4 & 1) << 3
    return bytes([0x62, p0, p1, p2, 0x50, _modrm(target, signed)])


def vex_vpdpbusd(target: int, unsigned: int, signed: int) -> bytes:
    """vpdpbusd ymm{target}, ymm{unsigned}, ymm{signed} (VEX.256.66.0F38.W0 50 /r)."""
    p0 = ((~target >> 3) & 1) << 7 | 1 << 6 | ((~signed >> 3) & 1) << 5 | 0b00010
    p1 = (~unsigned & 15) << 3 | 0b101
    return bytes([0xC4, p0, p1, 0x50, _modrm(target, signed)])


def tdpbusd(target: int, unsigned: int, signed: int) -> bytes:
    """tdpbusd tmm{target}, tmm{unsigned}, tmm{signed} (VEX.128.66.0F38.W0 5E /r), tiles 0 to 7."""
    return bytes([0xC4, 0xE2, (~signed & 15) << 3 | 0b001, 0x5E, _modrm(target, unsigned)])


def _modrm(reg: int, rm: int) -> int:
    return 0xC0 | (reg & 7) << 3 | (rm & 7)


def _compile(before: bytes, body: bytes, after: bytes) -> Loop | None:
    """A function that runs `body` the given number of times and returns the seconds; None where that cannot be."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        return None
    again = body + _DEC_RDI
    jump = (-(len(again) + len(_JNZ) + 4)).to_bytes(4, "little", signed=True)
    address = _executable(before + again + _JNZ + jump + after)
    if address is None:
        return None
    function = ctypes.CFUNCTYPE(None, ctypes.c_uint64)(address)

    def seconds(passes: int) -> float:
        start = time.perf_counter()
        function(passes)
        return time.perf_counter() - start

    return seconds


def _executable(code: bytes) -> int | None:
    """The code in memory that is writable first and executable then, never both; None where that is forbidden."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size = -(-len(code) // mmap.PAGESIZE) * mmap.PAGESIZE
    address = libc.mmap(None, size, _READ_WRITE, _PRIVATE_ANONYMOUS, -1, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        return None
    ctypes.memmove(address, code, len(code))
    return address if libc.mprotect(address, size, _READ_EXECUTE) == 0 else None
