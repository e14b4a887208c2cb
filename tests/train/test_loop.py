"""The loop: it learns, it records what it should, and it says plainly why it cannot go on."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from safetensors.torch import save_file
from tiny import TERNARY, images, recipe, run

from tritkit.activations import FakeQuantize
from tritkit.errors import ModelFileError, TritkitError, UserError
from tritkit.models import cifar_resnet
from tritkit.surgery import named_ternary
from tritkit.train import ConsoleReporter, evaluate, load_trained, read_record, train
from tritkit.train.images import MemoryImages, mixed, split
from tritkit.train.objective import cross_entropy, distillation, make_loss
from tritkit.train.ranks import Ranks
from tritkit.train.teacher import make_teacher


def test_it_learns_and_records(tmp_path: Path) -> None:
    result = run(tmp_path, {"epochs": 6, "held_out": 32})
    header, *epochs, final = read_record(result.record)
    assert header["recipe"]["epochs"] == 6
    assert header["versions"]["torch"] == torch.__version__
    assert [row["epoch"] for row in epochs] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in epochs] == [7, 14, 21, 28, 35, 42]  # 224 images in batches of 32
    assert epochs[-1]["train_error"] < 0.5 < epochs[0]["train_error"]
    assert all(0 <= row["held_out_error"] <= 1 for row in epochs)
    assert final["test_error"] == result.test_error < 0.7  # guessing is 0.9
    assert final["test_images"] == 64


def test_a_ternary_run_ends_in_the_network_it_reports(tmp_path: Path) -> None:
    result = run(tmp_path, TERNARY)
    net, loaded = load_trained(result.weights)
    assert loaded == recipe(**TERNARY)
    assert evaluate(net, images(64, 1), loaded.mean, loaded.std) == result.test_error
    layers = read_record(result.record)[-1]["layers"]
    ternary = {name: value for name, _, value in named_ternary(net)}
    assert list(layers) == list(ternary) == [f"layer{k}.0.conv{c}" for k in (1, 2, 3) for c in (1, 2)]
    for name, value in ternary.items():
        assert layers[name]["wp"] == float(value.scale_pos.mean())
        assert layers[name]["density"] == pytest.approx(float((value.codes != 0).double().mean()))
        assert torch.equal(value.snap().dequantize(), value.dequantize())  # on the deployed grid already
    quantizers = [m for m in net.modules() if isinstance(m, FakeQuantize)]
    assert quantizers
    assert all(q.ready and q.frozen for q in quantizers)


def test_codes_stay_when_frozen(tmp_path: Path) -> None:
    changes = {**TERNARY, "freeze_codes_epoch": 2, "activations": None, "snap_scales": False}
    first, *_ = (row for row in read_record(run(tmp_path, changes).record) if row["kind"] == "epoch")
    last = read_record(tmp_path / "record.jsonl")[-1]
    for name, layer in last["layers"].items():
        assert layer["density"] == first["layers"][name]["density"]
        assert layer["wp"] != first["layers"][name]["wp"]


def test_the_seed_decides(tmp_path: Path) -> None:
    losses = [
        [row["loss"] for row in read_record(run(tmp_path / str(k), {"seed": seed, "epochs": 2}).record)[1:-1]]
        for k, seed in enumerate((0, 0, 1))
    ]
    assert losses[0] == losses[1] != losses[2]


def test_it_leaves_the_callers_random_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    run(tmp_path, {"epochs": 2})
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()


def test_held_out_images_are_the_same_in_every_run() -> None:
    everything = images(256, 0)
    rest, kept = split(everything, 40)
    assert (len(rest), len(kept)) == (216, 40)
    assert {i.numpy().tobytes() for i in rest.images}.isdisjoint(i.numpy().tobytes() for i in kept.images)
    torch.manual_seed(77)
    assert torch.equal(split(everything, 40)[1].images, kept.images)


def test_evaluate_counts_and_leaves_the_modes() -> None:
    net = cifar_resnet(8)
    net.layer2.eval()
    few = images(7, 3)
    error = evaluate(net, few, (0.5,) * 3, (0.25,) * 3, batch_size=3)
    assert error * 7 == pytest.approx(round(error * 7))
    assert net.training
    assert net.layer1.training
    assert not net.layer2.training
    with pytest.raises(UserError, match="no images"):
        evaluate(net, few.subset(torch.empty(0, dtype=torch.int64)), (0.5,) * 3, (0.25,) * 3)


def test_distillation_by_hand() -> None:
    logits, teacher = torch.tensor([[0.0, 2.0]]), torch.tensor([[4.0, 0.0]])
    # T = 2: teacher softmax(2, 0) = (.880797, .119203), student softmax(0, 1) = (.268941, .731059)
    # KL = .880797 ln(.880797/.268941) + .119203 ln(.119203/.731059) = 1.044923 - .216194; times 4
    assert float(distillation(logits, teacher, 2.0)) == pytest.approx(3.31492, abs=1e-4)
    assert float(distillation(teacher, teacher, 3.0)) == pytest.approx(0, abs=1e-6)


def test_batches_are_mixed_as_often_as_the_recipe_says() -> None:
    images, labels = torch.rand(8, 3, 6, 6), torch.arange(8)
    assert mixed(images, labels, 10, recipe(), 5) == (images, labels)
    half = [mixed(images, labels, 10, recipe(cutmix=0.5), step)[1].dim() == 2 for step in range(400)]
    assert 160 < sum(half) < 240
    first, again, other = (mixed(images, labels, 10, recipe(cutmix=1.0), step)[0] for step in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_loss_of_a_mixed_image_is_that_of_its_classes_by_area() -> None:
    logits, smooth = torch.randn(4, 10), recipe(label_smoothing=0.1)
    a, b = torch.tensor([1, 2, 3, 4]), torch.tensor([5, 2, 0, 9])
    shares = 0.7 * F.one_hot(a, 10) + 0.3 * F.one_hot(b, 10)
    expected = 0.7 * cross_entropy(logits, a, smooth) + 0.3 * cross_entropy(logits, b, smooth)
    assert torch.allclose(cross_entropy(logits, shares, smooth), expected)


def test_the_teacher_gets_its_own_normalisation(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = cifar_resnet(8)
    metadata = {"normalize_mean": "0.1,0.2,0.3", "normalize_std": "0.5,0.4,0.25"}
    save_file(teacher.state_dict(), tmp_path / "t.safetensors", metadata)
    settings = {"model": "cifar-resnet8", "weights": str(tmp_path / "t.safetensors"), "weight": 1.0}
    ours = recipe(distill=settings, precision="float32")
    few = images(4, 0)
    raw = few.images.float() / 255
    mine = (raw - torch.tensor(ours.mean).view(3, 1, 1)) / torch.tensor(ours.std).view(3, 1, 1)
    theirs = (raw - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.4, 0.25]).view(3, 1, 1)
    same = make_loss(ours)(teacher.eval()(theirs), mine, few.labels)
    assert same.item() == pytest.approx(0, abs=1e-5)


def test_a_teacher_of_8_bits_says_what_the_floats_say(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(cifar_resnet(8).state_dict(), tmp_path / "t.safetensors")
    settings = {"model": "cifar-resnet8", "weights": str(tmp_path / "t.safetensors")}
    floats, integers = (recipe(distill={**settings, "bits": bits}) for bits in (32, 8))
    training = MemoryImages(images(64, 0), integers, Ranks())
    batch = next(iter(training.plain(32)[0]))
    float_logits = make_teacher(floats.distill, floats, torch.device("cpu"), None)(batch)
    integer_logits = make_teacher(integers.distill, integers, torch.device("cpu"), training)(batch)
    assert integer_logits.shape == float_logits.shape
    difference = (integer_logits - float_logits).abs().max()
    assert 0 < difference < 0.05 * float_logits.abs().max()
    run(tmp_path / "out", {"epochs": 2, "distill": {**settings, "bits": 8}})


@pytest.mark.parametrize("bits", [8, 32])
def test_an_ensemble_says_the_mean_of_what_each_says(tmp_path: Path, bits: int) -> None:
    weights = []
    for depth, normalize in ((8, "0.5"), (14, "0.4")):  # each has its own normalisation
        torch.manual_seed(depth)
        weights.append(str(tmp_path / f"{depth}.safetensors"))
        metadata = {"normalize_mean": normalize, "normalize_std": "0.25"}
        save_file(cifar_resnet(depth).state_dict(), weights[-1], metadata)
    models = ["cifar-resnet8", "cifar-resnet14"]
    ours = recipe(distill={"model": models, "weights": weights, "bits": bits})
    training = MemoryImages(images(64, 0), ours, Ranks())
    batch = next(iter(training.plain(32)[0]))

    def logits(model: object, weights: object) -> torch.Tensor:
        alone = recipe(distill={"model": model, "weights": weights, "bits": bits})
        return make_teacher(alone.distill, alone, torch.device("cpu"), training)(batch)

    each = [logits(*pair) for pair in zip(models, weights, strict=True)]
    assert torch.equal(logits(models, weights), (each[0] + each[1]) / 2)
    assert not torch.equal(each[0], each[1])


def test_a_teacher_of_8_bits_stays_on_the_cpu(tmp_path: Path) -> None:
    save_file(cifar_resnet(8).state_dict(), tmp_path / "t.safetensors")
    ours = recipe(distill={"model": "cifar-resnet8", "weights": str(tmp_path / "t.safetensors"), "bits": 8})
    with pytest.raises(UserError, match=r"distill\.bits = 8 needs a run on the CPU, and this one is on meta"):
        make_loss(ours, torch.device("meta"))
    with pytest.raises(UserError, match="needs the training images"):
        make_loss(ours)


# ---- what goes wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"batch_size": 300}, "batch_size is 300, but there are only 256 training images"),
        ({"held_out": 256}, "held_out is 256; there are 256"),
        ({"model": "vgg"}, "no model 'vgg'"),
        ({"init": "absent.safetensors"}, "no file absent.safetensors"),
        ({"method": {"name": "ttq", "treshold": 0.1}}, "no parameter 'treshold'; did you mean 'threshold'"),
        ({"method": {"name": "tqt"}}, "no method 'tqt'"),
        ({"method": {"name": "ttq"}, "exclude": ["fc"]}, "'fc' matches no"),
        ({"distill": {"model": "cifar-resnet8", "weights": "absent"}}, "no file absent"),
        ({"distill": {"model": ["a", "b"], "weights": "c"}}, "2 models and 1 weights; each teacher needs one of both"),
        ({"distill": {"model": [], "weights": []}}, "0 models and 0 weights"),
    ],
)
def test_mistakes(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        run(tmp_path, changes)
    assert not list(tmp_path.iterdir())  # nothing half-begun


def test_a_loss_that_diverges(tmp_path: Path) -> None:
    with pytest.raises(TritkitError, match=r"the loss is .* at step \d+; lower lr"):
        run(tmp_path, {"lr": 1e30, "epochs": 4})


def test_no_data(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no CIFAR-10"):
        train(recipe(), tmp_path, tmp_path / "out")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_disk_full(tmp_path: Path) -> None:
    run(tmp_path, {"epochs": 2, "schedule": {"name": "cosine", "warmup_epochs": 0}})
    for name in ("record.jsonl", "final.safetensors"):
        (tmp_path / name).unlink()
    (tmp_path / "checkpoint.pt").unlink()
    (tmp_path / "checkpoint.pt.tmp").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"cannot write .*checkpoint\.pt: No space left on device"):
        run(tmp_path, {})


def test_the_output_folder_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match="cannot write"):
        run(tmp_path / "out", {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        run(tmp_path / "out", {})


def test_foreign_weights_are_no_run(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelFileError, match="no recipe in its metadata"):
        load_trained(tmp_path / "w.safetensors")


def test_without_a_terminal_an_epoch_is_a_line(tmp_path: Path) -> None:
    text = io.StringIO()
    run(tmp_path, {"epochs": 2}, ConsoleReporter(Console(file=text, force_terminal=False, width=120)))
    lines = text.getvalue().splitlines()
    assert [line[:9] for line in lines] == ["epoch   1", "epoch   2"]
    assert "train error" in lines[0]
