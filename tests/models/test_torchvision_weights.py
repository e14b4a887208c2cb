"""Weights by torchvision's keys: from .pth files and URLs, and what the networks compute with them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tritkit.errors import ModelFileError, UserError
from tritkit.models import build, fetch, load_float

State = dict[str, Tensor]


def random_state(net: nn.Module) -> State:
    """Weights of moderate size by the network's keys, with running statistics that matter."""
    generator = torch.Generator().manual_seed(3)
    state = {}
    for key, value in net.state_dict().items():
        drawn = torch.randn(value.shape, generator=generator)
        if key.endswith("running_var") or (value.dim() == 1 and key.endswith("weight")):
            state[key] = 0.5 + drawn.abs()
        elif value.dim() > 1:
            state[key] = drawn * (2 / value[0].numel()) ** 0.5
        else:
            state[key] = drawn if value.is_floating_point() else torch.tensor(5)
    return state


def norm(x: Tensor, w: State, name: str) -> Tensor:
    """Batch norm by its definition."""
    mean, var, gamma, beta = (w[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
    shape = (1, -1, *[1] * (x.dim() - 2))
    return (x - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt() * gamma.view(shape) + beta.view(shape)


def resnet(x: Tensor, w: State) -> Tensor:
    """He et al. 2015, read from the keys alone: how many blocks there are, and of which kind."""
    x = F.conv2d(x, w["conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(norm(x, w, "bn1").clamp(min=0), 3, 2, 1)
    for stage in range(1, 5):
        for k in range(len({key.split(".")[1] for key in w if key.startswith(f"layer{stage}.")})):
            at, stride = f"layer{stage}.{k}", 2 if stage > 1 and k == 0 else 1
            convs = [c for c in (1, 2, 3) if f"{at}.conv{c}.weight" in w]
            strided = 2 if len(convs) == 3 else 1
            y = x
            for c in convs:
                kernel = w[f"{at}.conv{c}.weight"]
                y = F.conv2d(y, kernel, stride=stride if c == strided else 1, padding=kernel.shape[-1] // 2)
                y = norm(y, w, f"{at}.bn{c}")
                y = y.clamp(min=0) if c != convs[-1] else y
            if f"{at}.downsample.0.weight" in w:
                x = norm(F.conv2d(x, w[f"{at}.downsample.0.weight"], stride=stride), w, f"{at}.downsample.1")
            x = (x + y).clamp(min=0)
    return x.mean((2, 3)) @ w["fc.weight"].T + w["fc.bias"]


def vgg(x: Tensor, w: State) -> Tensor:
    """Simonyan & Zisserman 2014, D: the gaps between the numbers of the convolutions are where torchvision pools."""
    numbers = [int(key.split(".")[1]) for key in w if key.startswith("features.") and w[key].dim() == 4]
    for k, following in zip(numbers, [*numbers[1:], numbers[-1] + 4], strict=True):
        x = F.conv2d(x, w[f"features.{k}.weight"], w[f"features.{k}.bias"], padding=1)
        x = norm(x, w, f"features.{k + 1}").clamp(min=0)
        x = F.max_pool2d(x, 2) if following == k + 4 else x
    x = x.flatten(1)
    for k in (0, 3):
        x = (x @ w[f"classifier.{k}.weight"].T + w[f"classifier.{k}.bias"]).clamp(min=0)
    return x @ w["classifier.6.weight"].T + w["classifier.6.bias"]


def alexnet(x: Tensor, w: State) -> Tensor:
    """DoReFa-Net's graph."""
    x = F.conv2d(x, w["conv0.weight"], w["conv0.bias"], stride=4).clamp(min=0)
    x = norm(F.conv2d(x, w["conv1.weight"], padding=2, groups=2), w, "bn1").clamp(min=0)
    x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)
    x = F.max_pool2d(norm(F.conv2d(x, w["conv2.weight"], padding=1), w, "bn2").clamp(min=0), 3, 2, 1)
    x = norm(F.conv2d(x, w["conv3.weight"], padding=1, groups=2), w, "bn3").clamp(min=0)
    x = F.max_pool2d(norm(F.conv2d(x, w["conv4.weight"], padding=1, groups=2), w, "bn4").clamp(min=0), 3, 2).flatten(1)
    for name in ("fc0", "fc1"):
        x = norm(x @ w[f"{name}.weight"].T, w, f"bn{name}").clamp(min=0)
    return x @ w["fct.weight"].T + w["fct.bias"]


@pytest.mark.parametrize(
    ("name", "size", "again"),
    [
        *((f"resnet{depth}", 64, resnet) for depth in (18, 34, 50, 101)),
        ("vgg16-bn", 224, vgg),
        ("alexnet-bn", 224, alexnet),
    ],
)
@torch.no_grad()
def test_outputs_on_loaded_weights(name: str, size: int, again: object, tmp_path: Path) -> None:
    """Against a second computation from the file's keys, in float64 (VGG-16, which takes long in it, in float32)."""
    dtype = torch.float32 if again is vgg else torch.float64
    with torch.device("meta"):
        net = build(name, 11)
    state = random_state(net)
    torch.save(state, tmp_path / "w.pth")
    net = net.to_empty(device="cpu").eval()
    load_float(tmp_path / "w.pth", net)
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    want = again(x.to(dtype), {key: value.to(dtype) for key, value in state.items()})  # type: ignore[operator]
    torch.testing.assert_close(net(x).to(dtype), want, rtol=1e-5, atol=1e-5 * float(want.abs().max()))


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "vgg16-bn"])
@torch.no_grad()
def test_outputs_are_those_of_torchvision(name: str, tmp_path: Path) -> None:
    """Where torchvision imports; it is no dependency, and one made for another torch raises RuntimeError."""
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision does not import: {error}")
    theirs = getattr(models, name.replace("-", "_"))(weights=None, num_classes=11).eval()
    state = random_state(theirs)
    theirs.load_state_dict(state)
    torch.save(state, tmp_path / "w.pth")
    net = build(name, 11).eval()
    load_float(tmp_path / "w.pth", net)
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    want = theirs(x)
    torch.testing.assert_close(net(x), want, rtol=1e-5, atol=1e-5 * float(want.abs().max()))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04garbage", b"\x80\x02cos\nsystem\n(S'true'\ntR."])
def test_damaged_and_hostile_pth(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"no whole \.pth file"):
        load_float(tmp_path / "w.pth", build("cifar-resnet8"))


def test_a_pth_file_of_something_else(tmp_path: Path) -> None:
    torch.save({"model": {"conv1.weight": torch.zeros(1)}}, tmp_path / "w.pth")
    with pytest.raises(ModelFileError, match="holds no tensors by name"):
        load_float(tmp_path / "w.pth", build("cifar-resnet8"))


class _Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked += 1  # type: ignore[attr-defined]
        body = b"weights" if self.path == "/w.pth" else b""
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HTTPServer]:
    """Gives "weights" at /w.pth; the cache is in tmp_path."""
    monkeypatch.setenv("TRITKIT_CACHE", str(tmp_path / "cache"))
    made = HTTPServer(("127.0.0.1", 0), _Server)
    made.asked = 0  # type: ignore[attr-defined]
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def test_fetching(server: HTTPServer, tmp_path: Path) -> None:
    checksum = hashlib.sha256(b"weights").hexdigest()
    url = f"http://127.0.0.1:{server.server_port}/w.pth"
    for digits in (checksum[:8], checksum):
        path = fetch(f"{url}#sha256={digits}")
        assert (path, path.read_bytes()) == (tmp_path / "cache" / "w.pth", b"weights")
    assert server.asked == 1  # type: ignore[attr-defined]
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "w.pth").write_bytes(b"weights")
    assert fetch(f"{url}#sha256={checksum}", [tmp_path / "here"]) == tmp_path / "here" / "w.pth"
    path.write_bytes(b"spoilt")
    with pytest.raises(UserError, match=r"has SHA-256 .*expected .*remove it"):
        fetch(f"{url}#sha256={checksum}")


def test_what_cannot_be_fetched(server: HTTPServer, tmp_path: Path) -> None:
    here = f"http://127.0.0.1:{server.server_port}"
    with pytest.raises(UserError, match="expected 00000000"):
        fetch(f"{here}/w.pth#sha256=00000000")
    with pytest.raises(UserError, match=r"cannot reach .*Not Found.*put absent\.pth into the folder pretrained"):
        fetch(f"{here}/absent.pth#sha256=00000000")
    assert list((tmp_path / "cache").iterdir()) == []
    for url in (
        f"{here}/w.pth",
        f"{here}/w.pth#sha256=123",
        f"{here}/#sha256=00000000",
        "file:///etc/x#sha256=00000000",
    ):
        with pytest.raises(UserError, match="cannot be fetched; allowed"):
            fetch(url)
