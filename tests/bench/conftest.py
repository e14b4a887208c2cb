"""A small workload, a cache of its own, and worker processes that know the fake engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

FAKES = Path(__file__).parent


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _environment(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITKIT_CACHE", str(cache))
    monkeypatch.setenv("PYTHONPATH", str(FAKES))


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that makes the named fake engines, and ours, the only ones there are."""
    import tritkit.bench.peers as peers

    monkeypatch.syspath_prepend(str(FAKES))
    ours = peers.PEERS[peers.OURS]

    def use(*names: str) -> None:
        monkeypatch.setattr(peers, "PEERS", {peers.OURS: ours} | {name: f"fake_peers:{name}" for name in names})

    return use
