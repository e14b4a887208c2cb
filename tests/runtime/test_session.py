"""Session for the person who uses it: wrong arguments get a sentence, threads and forks get the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from engine_networks import Builder, small_network

from tritkit.errors import UserError
from tritkit.runtime import Session, as_table, kernels, library_path, library_version

X = np.random.default_rng(0).normal(0, 3, (4, 3, 9, 8)).astype(np.float32)


@pytest.fixture
def session() -> Session:
    return Session(small_network().model(**{"tritkit.input": '{"mean": [0.5], "std": [0.25]}'}), threads=2)


def test_inputs_outputs_metadata(session: Session) -> None:
    assert session.inputs[0].name == "image"
    assert session.inputs[0].shape == (None, 3, 9, 8)
    assert session.outputs[0].shape == (None, 5)
    assert session.outputs[0].dtype == "float32"
    assert session.metadata == {"tritkit.format": "1", "tritkit.input": '{"mean": [0.5], "std": [0.25]}'}
    assert session.threads == 2


def test_path_and_bytes_are_the_same(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "nét.onnx"
    path.write_bytes(small_network().model())
    for given in (path, str(path)):
        with Session(given) as other:
            assert np.array_equal(other.run(X), session.run(X))


def test_any_strides_are_accepted(session: Session) -> None:
    want = session.run(X)
    assert np.array_equal(session.run(np.asfortranarray(X)), want)
    assert np.array_equal(session.run(np.repeat(X, 2, axis=3)[..., ::2]), want)
    assert np.array_equal(session.run({"image": X}), want)


def test_result_is_new_memory_each_time(session: Session) -> None:
    first = session.run(X)
    assert isinstance(first, np.ndarray)
    kept = first.copy()
    session.run(-X)
    assert np.array_equal(first, kept)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (X.astype(np.float64), r"astype\(numpy.float32\)"),
        ((X * 10).astype(np.uint8), r"mean \[0.5\], std \[0.25\]"),
        (X[0], r"\[N, 3, 9, 8\]"),
        (X[:, :2], r"\[N, 3, 9, 8\]"),
        (X[:0], "N ≥ 1"),
        (X.tolist(), "NumPy array"),
        ({"other": X}, "inputs are"),
        (np.where(np.arange(X.size).reshape(X.shape) == 2 * 216 + 5, np.float32(np.nan), X), "image 2.*NaN"),
    ],
)
def test_wrong_images_are_explained(session: Session, value: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        session.run(value)  # type: ignore[arg-type]


def test_nan_made_by_a_float32_layer_is_refused() -> None:
    b = Builder(0, 2, 3, 3)
    w = b.constant(np.array([[1e30, -1e30]]).reshape(1, 2, 1, 1), np.float32)
    y = b.node("Conv", ["image", w, b.constant([0.0], np.float32)], None, kernel_shape=[1, 1])
    b.output(b.dequantize(b.quantize(y)), 4)
    x = np.zeros((3, 2, 3, 3), np.float32)
    x[1] = 1e30
    with Session(b.model()) as session, pytest.raises(UserError, match="image 1 gives a NaN"):
        session.run(x)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threads": 0}, "1 to 1024"),
        ({"threads": -1}, "1 to 1024"),
        ({"threads": 5000}, "1 to 1024"),
        ({"engine": "fast"}, "auto, dense, unpacked, gather, winograd, baked and reference"),
        ({"code_limit": -5}, "code_limit must be a number of bytes"),
        ({"isa": "sse9"}, "scalar, avx2, avxvnni, avx512vnni, amx"),
    ],
)
def test_wrong_options_are_explained(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Session(small_network().model(), **options)  # type: ignore[arg-type]


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITKIT_ISA", "scalar")
    monkeypatch.setenv("TRITKIT_THREADS", "3")
    with Session(small_network().model()) as session:
        assert session.threads == 3
        assert {row.kernel for row in session.summary() if row.macs} == {"reference"}
    monkeypatch.setenv("TRITKIT_THREADS", "many")
    with pytest.raises(UserError, match="TRITKIT_THREADS is 'many'"):
        Session(small_network().model())
    monkeypatch.setenv("TRITKIT_THREADS", "1")
    monkeypatch.setenv("TRITKIT_ISA", "mmx")
    with pytest.raises(UserError, match="TRITKIT_ISA is 'mmx'"):
        Session(small_network().model())


def test_summary_and_profile(session: Session) -> None:
    rows = session.summary()
    fused = [row for row in rows if row.op == "TernaryQConv + QAdd"]
    assert len(fused) == 2
    assert fused[0].name == "layer3.TernaryQConv + layer4.QAdd"
    assert fused[0].weights == 900
    assert fused[0].macs == 900 * 9 * 8
    assert fused[0].density is not None
    assert 0.4 < fused[0].density < 0.6
    assert not any(row.op == "Reshape" for row in rows), "the flatten before the classifier costs nothing"
    times = session.profile(X, repeat=3)
    assert [t.name for t in times] == [row.name for row in rows]
    assert abs(sum(t.share for t in times) - 1) < 1e-6
    assert "layer3.TernaryQConv" in as_table(rows)
    assert len(as_table(times).splitlines()) == len(rows) + 1


def test_close(session: Session) -> None:
    session.close()
    session.close()
    with pytest.raises(UserError, match="closed"):
        session.run(X)


def test_calls_from_many_threads(session: Session) -> None:
    want = {batch: session.run(X[:batch]) for batch in (1, 2, 4)}
    wrong = []

    def work(batch: int) -> None:
        for _ in range(30):
            if not np.array_equal(session.run(X[:batch]), want[batch]):
                wrong.append(batch)

    threads = [threading.Thread(target=work, args=(batch,)) for batch in (1, 2, 4, 1, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_close_while_another_thread_runs() -> None:
    session, started = Session(small_network().model(), threads=2), threading.Event()
    big, results = np.repeat(X, 64, axis=0), []

    def work() -> None:
        try:
            while True:
                results.append(session.run(big))
                started.set()
        except UserError:
            started.set()

    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    session.close()
    thread.join()
    assert all(np.array_equal(r, results[0]) for r in results)


FORK = """
import os, sys, threading
sys.path.insert(0, sys.argv[1])
import numpy as np
from engine_networks import small_network
from tritkit.runtime import Session
x = np.random.default_rng(0).normal(0, 3, (64, 3, 9, 8)).astype(np.float32)
session = Session(small_network().model(), threads=2)
want, stop = session.run(x), threading.Event()
def busy():
    while not stop.is_set():
        session.run(x)
thread = threading.Thread(target=busy)
thread.start()
failed = 0
for _ in range(20):
    child = os.fork()
    if child == 0:
        same = np.array_equal(session.run(x), want) and np.array_equal(Session(small_network().model()).run(x), want)
        os._exit(0 if same else 1)
    failed += os.waitpid(child, 0)[1] != 0
stop.set()
thread.join()
sys.exit(failed)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_fork_while_running() -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORK, str(Path(__file__).parent)]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0


def test_kernels_and_version() -> None:
    assert kernels()[-1].isa == "scalar"
    assert library_version().count(".") == 2
    assert library_path().is_file()


def test_missing_library_says_what_to_do(tmp_path: Path) -> None:
    code = "from tritkit.runtime import Session; Session(b'')"
    environment = {**os.environ, "TRITKIT_LIBRARY": str(tmp_path / "none.so")}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "TritkitError" in result.stderr
    assert "reinstall tritkit or unset TRITKIT_LIBRARY" in result.stderr


def test_import_needs_numpy_only() -> None:
    code = "import sys, tritkit.runtime; sys.exit(any(m in sys.modules for m in ('torch', 'onnx', 'onnxruntime')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
