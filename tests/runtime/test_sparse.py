"""Convolutions that skip zeros: same bits, memory that is never writable and executable, refusals, forks, threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import engine_oracle
import numpy as np
import pytest
from engine_networks import small_network

from tritkit.runtime import Session, kernels

SHAPE = (3, 9, 8)
HAS_BAKED = any(kernel.name.endswith("_baked") for kernel in kernels())
needs_baked = pytest.mark.skipif(not HAS_BAKED, reason="this CPU has no AVX2")


def images(batch: int = 3) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((batch, *SHAPE)).astype(np.float32)


def executable() -> dict[str, str]:
    """Anonymous executable mappings of this process: addresses and permissions."""
    rows = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    return {row[0]: row[1] for row in rows if "x" in row[1] and len(row) == 5}


def expected() -> np.ndarray:
    return engine_oracle.run(small_network(3).proto(), images())[0]


@needs_baked
def test_code_is_never_writable_and_goes_with_its_session() -> None:
    before = executable()
    session = Session(small_network(3).model(), engine="baked")
    made = {place: permissions for place, permissions in executable().items() if place not in before}
    assert sum(row.code_bytes for row in session.summary()) > 0
    assert set(made.values()) == {"r-xp"}
    session.close()
    assert not made.keys() & executable().keys()


@needs_baked
def test_a_limit_of_code_is_kept() -> None:
    with Session(small_network(3).model(), engine="baked") as session:
        rows = [row for row in session.summary() if row.code_bytes]
        total = sum(row.code_bytes for row in rows)
    for limit in (0, 1, rows[0].code_bytes, total - 1):
        with Session(small_network(3).model(), engine="baked", code_limit=limit) as session:
            assert sum(row.code_bytes for row in session.summary()) <= limit
            assert np.array_equal(session.run(images()), expected())


_REFUSED = """
import ctypes, sys
import numpy as np
from tritkit.runtime import Session
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN
    sys.exit(77)
with Session(sys.argv[1], engine="baked", threads=1) as session:
    assert not any(row.code_bytes for row in session.summary())
    np.save(sys.argv[3], session.run(np.load(sys.argv[2])))
"""


@needs_baked
def test_runs_dense_where_the_system_refuses_executable_memory(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(small_network(3).model())
    np.save(tmp_path / "x.npy", images())
    files = [str(tmp_path / name) for name in ("net.onnx", "x.npy", "y.npy")]
    done = subprocess.run([sys.executable, "-c", _REFUSED, *files], capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip("this kernel cannot refuse executable memory (prctl PR_SET_MDWE, Linux 6.3)")
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(files[2]), expected())


@pytest.mark.parametrize("engine", ["unpacked", "gather", "winograd", "baked"])
def test_same_bits_in_a_forked_child(engine: str) -> None:
    with Session(small_network(3).model(), engine=engine, threads=2) as session:
        want = expected()
        assert np.array_equal(session.run(images()), want)
        child = os.fork()
        if child == 0:
            os._exit(0 if np.array_equal(session.run(images()), want) else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert np.array_equal(session.run(images()), want)


@pytest.mark.parametrize("engine", ["gather", "winograd", "baked", "auto"])
def test_sessions_on_threads(engine: str) -> None:
    wrong: list[str] = []

    def work(threads: int) -> None:
        with Session(small_network(3).model(), engine=engine, threads=threads) as session:
            for _ in range(5):
                if not np.array_equal(session.run(images()), expected()):
                    wrong.append(f"{engine}, {threads} threads")

    workers = [threading.Thread(target=work, args=(1 + i % 3,)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_what_was_tried_is_shown() -> None:
    with Session(small_network(3).model(), engine="dense") as session:
        assert all(row.dense_microseconds is None for row in session.summary())
        assert not any(row.code_bytes for row in session.summary())


def plan(session: Session) -> list[tuple[str, int]]:
    return [(row.kernel, row.code_bytes) for row in session.summary()]


@needs_baked
def test_what_was_tried_is_kept(tmp_path: Path) -> None:
    kept = tmp_path / "net.tuned"
    with Session(small_network(3).model(), threads=1, tuned=kept) as first:
        assert first.tuned.endswith(f"{kept} keeps it")
        assert np.array_equal(first.run(images()), expected())
        text = kept.read_text()
        with Session(small_network(3).model(), threads=1, tuned=str(kept)) as second:
            assert second.tuned == f"the choices of {kept} were taken"
            assert plan(second) == plan(first)
            assert [row.dense_microseconds for row in second.summary()] == [
                row.dense_microseconds for row in first.summary()
            ]
            assert np.array_equal(second.run(images()), expected())
    assert kept.read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["net.tuned"]


@needs_baked
@pytest.mark.parametrize("spoil", ["other network", "other threads", "cut", "more", "number", "empty", "huge"])
def test_choices_that_are_not_ours_are_not_taken(tmp_path: Path, spoil: str) -> None:
    kept = tmp_path / "net.tuned"
    Session(small_network(3 if spoil != "other network" else 4).model(), threads=1, tuned=kept).close()
    text = kept.read_text()
    changed = {
        "cut": text[:-6],
        "more": text + "step 0 way 1 baked_from 1 nanoseconds 1 1 1 1 1\n",
        "number": text.replace("way ", "way 7", 1),
        "empty": "",
        "huge": text.replace("step ", f"step {2**63 - 1} ", 1),
    }
    kept.write_text(changed.get(spoil, text))
    threads = 2 if spoil == "other threads" else 1
    with Session(small_network(3).model(), threads=threads, tuned=kept) as session:
        assert f"{kept} is of another" in session.tuned or f"{kept} is damaged" in session.tuned
        assert session.tuned.endswith("keeps it")
        assert np.array_equal(session.run(images()), expected())


@needs_baked
def test_any_choice_gives_the_same_bits(tmp_path: Path) -> None:
    kept = tmp_path / "net.tuned"
    Session(small_network(3).model(), threads=1, tuned=kept).close()
    head = [line for line in kept.read_text().splitlines() if not line.startswith(("step ", "end"))]
    for way, baked_from in ((0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (1, 1), (2, 2), (3, 2)):
        with Session(small_network(3).model(), engine="dense") as session:
            steps = range(len(session.summary()))
        rows = [f"step {i} way {way} baked_from {baked_from} nanoseconds 5 6 7 8 9" for i in steps]
        kept.write_text("\n".join([*head, *rows, "end", ""]))
        with Session(small_network(3).model(), threads=1, tuned=kept) as session:
            assert session.tuned == f"the choices of {kept} were taken"
            assert np.array_equal(session.run(images()), expected())


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with Session(small_network(3).model(), tuned=tmp_path / "missing" / "net.tuned") as session:
        assert "could not be written: No such file or directory" in session.tuned
        assert np.array_equal(session.run(images()), expected())
