"""The training loop, one for every method. A run killed at any moment goes on to the same bits.

An output folder holds record.jsonl (see `record`), checkpoint.pt (see `checkpoint`) and, at the end, final.safetensors.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tritkit import compress
from tritkit.activations import freeze_, quantize_activations
from tritkit.data import ImageSet, crop_and_flip, load_cifar10, normalise
from tritkit.errors import TritkitError, UserError
from tritkit.surgery import after_step_, freeze_codes_
from tritkit.train import stages
from tritkit.train.checkpoint import State, load_checkpoint, save_checkpoint
from tritkit.train.evaluate import evaluate
from tritkit.train.files import told
from tritkit.train.network import build_network, finish, layer_rows, save_trained, with_activations
from tritkit.train.objective import make_loss, set_rate
from tritkit.train.progress import ConsoleReporter, Reporter
from tritkit.train.recipe import Recipe
from tritkit.train.record import Record, header

_SPLIT_SEED = 0  # held-out images are the same in every run, whatever its seed


@dataclass(frozen=True)
class RunResult:
    """What a finished run left: its error on the test images (0..1) and where its files are."""

    test_error: float
    weights: Path
    record: Path


def train(
    recipe: Recipe,
    data_root: str | Path | None,
    out_dir: str | Path,
    resume: bool = True,
    reporter: Reporter | None = None,
) -> RunResult:
    """Train on CIFAR-10 as `recipe` says and leave everything in `out_dir`.

    `data_root`: see `load_cifar10`. With `resume`, a run in `out_dir` that was cut short goes on from its last
    checkpoint, to the same bits as if it had not been, and a finished one is only reported; without it, such a folder
    is refused. Raises UserError for missing data, a folder that cannot be written or belongs to another recipe;
    TritkitError if the loss diverges.
    """
    sets = load_cifar10(data_root, "train"), load_cifar10(data_root, "test")
    return train_on(recipe, *sets, out_dir, resume, reporter)


def train_on(
    recipe: Recipe,
    images: ImageSet,
    test: ImageSet,
    out_dir: str | Path,
    resume: bool = True,
    reporter: Reporter | None = None,
) -> RunResult:
    """`train` with the training and the test images given."""
    out = Path(out_dir)
    with told(out):
        out.mkdir(parents=True, exist_ok=True)
    if not resume and (out / "record.jsonl").exists():
        raise UserError(f"{out} holds a run already; choose another folder, or resume it")
    with _deterministic(), torch.random.fork_rng(devices=[]):
        run = _Run(recipe, images, out, reporter or ConsoleReporter())
        done = run.finished()
        if done is not None:
            return done
        run.restore()
        run.steps()
        return run.conclude(test)


class _Run:
    """A run in progress: the network, its optimizer, and where it stands."""

    def __init__(self, recipe: Recipe, images: ImageSet, out: Path, reporter: Reporter) -> None:
        self.recipe, self.out, self.reporter = recipe, out, reporter
        self.record = Record(out / "record.jsonl")
        self.images, self.held_out = _split(images, recipe.held_out)
        self.per_epoch = len(self.images) // recipe.batch_size
        if self.per_epoch == 0:
            raise UserError(f"batch_size is {recipe.batch_size}, but there are only {len(self.images)} training images")
        torch.manual_seed(recipe.seed)
        self.net = build_network(recipe)
        self.optimizer = stages.make_optimizer(self.net, recipe)
        self.loss = make_loss(recipe)
        self.augmentation = torch.Generator().manual_seed(recipe.seed)
        self.quantized = False
        self.step = 0  # steps finished
        self.sums = _Sums()

    def finished(self) -> RunResult | None:
        """The result, if the folder holds a finished run of this recipe."""
        if load_checkpoint(self.out / "checkpoint.pt", self.recipe) is None:
            return None
        last = self.record.rows()[-1]
        return self._result(last["test_error"]) if last["kind"] == "final" else None

    def restore(self) -> None:
        """Go back to the last checkpoint, or begin."""
        state = load_checkpoint(self.out / "checkpoint.pt", self.recipe)
        if state is None:
            self.record.start(header(self.recipe))
            self._save()
            return
        if state["quantized"]:
            self.net, self.quantized = quantize_activations(self.net), True
        compress.restore_(self.net, state["net"])
        self.optimizer = stages.make_optimizer(self.net, self.recipe)
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.sums = state["step"], _Sums(**state["sums"])
        self.augmentation.set_state(state["augmentation"])
        torch.set_rng_state(state["torch"])
        self.record.truncate(state["record_bytes"])

    def steps(self) -> None:
        """All steps that remain."""
        total = self.recipe.epochs * self.per_epoch
        self.reporter.start(self.step, total)
        try:
            while self.step < total:
                self._epoch(self.step // self.per_epoch)
        finally:
            self.reporter.stop()

    def conclude(self, test: ImageSet) -> RunResult:
        """Finish the weights, read the test images once, and write the final row."""
        finish(self.net, self.recipe, self.images)
        error = evaluate(self.net, test, self.recipe.mean, self.recipe.std)
        save_trained(self.out / "final.safetensors", self.net, self.recipe, error)
        row = {"kind": "final", "test_error": error, "test_images": len(test), "layers": layer_rows(self.net)}
        row |= stages.sizes(self.net)
        self.record.append(row)
        return self._result(error)

    def _epoch(self, epoch: int) -> None:
        """What remains of an epoch; 0 is the first."""
        self._enter(epoch + 1)
        order = torch.randperm(len(self.images), generator=_seeded(self.recipe.seed, epoch))
        began = time.monotonic() - self.sums.seconds
        for batch in range(self.step % self.per_epoch, self.per_epoch):
            index = order[batch * self.recipe.batch_size : (batch + 1) * self.recipe.batch_size]
            self._step(self.images.images[index], self.images.labels[index])
            self.sums.seconds = time.monotonic() - began
            every = self.recipe.checkpoint_every
            if every and self.step % every == 0 and self.step % self.per_epoch:
                self._save()
            self.reporter.step(self.step)
        self._end(epoch + 1)

    def _enter(self, epoch: int) -> None:
        """The changes that begin with `epoch` (1 is the first), also when a run goes on in the middle of it."""
        activations = self.recipe.activations
        if activations and epoch >= activations.from_epoch and not self.quantized:
            self.net, self.quantized = with_activations(self.net, self.recipe, self.images), True
        if stages.share_due(self.net, self.recipe, epoch):
            stages.share(self.net, self.recipe)
            self.optimizer = stages.make_optimizer(self.net, self.recipe)
        if activations and activations.freeze_epoch and epoch >= max(activations.freeze_epoch, activations.from_epoch):
            freeze_(self.net)
        if self.recipe.freeze_codes_epoch and epoch >= self.recipe.freeze_codes_epoch:
            freeze_codes_(self.net)
        self.net.train()

    def _step(self, pixels: Tensor, labels: Tensor) -> None:
        images = normalise(crop_and_flip(pixels, self.augmentation), self.recipe.mean, self.recipe.std)
        self.sums.lr = set_rate(self.optimizer, self.recipe, self.step, self.per_epoch)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            logits = self.net(images).float()
            loss = self.loss(logits, images, labels)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        after_step_(self.net)
        self.step += 1
        if not math.isfinite(loss.item()):
            raise TritkitError(f"the loss is {loss.item()} at step {self.step}; lower lr or lengthen the warm-up")
        self.sums.loss += loss.item()
        self.sums.wrong += int((logits.argmax(1) != labels).sum())

    def _end(self, epoch: int) -> None:
        row: dict[str, Any] = {
            "kind": "epoch",
            "epoch": epoch,
            "step": self.step,
            "loss": self.sums.loss / self.per_epoch,
            "train_error": self.sums.wrong / (self.per_epoch * self.recipe.batch_size),
            "held_out_error": self._held_out_error(),
            "lr": self.sums.lr,
            "seconds": round(self.sums.seconds, 2),
            "layers": layer_rows(self.net),
        }
        self.record.append(row)
        self.sums = _Sums()
        self._save()
        self.reporter.epoch(row)

    def _held_out_error(self) -> float | None:
        if not len(self.held_out):
            return None
        return evaluate(self.net, self.held_out, self.recipe.mean, self.recipe.std)

    def _save(self) -> None:
        state: State = {
            "recipe": self.recipe.model_dump(mode="json"),
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "quantized": self.quantized,
            "step": self.step,
            "sums": vars(self.sums),
            "augmentation": self.augmentation.get_state(),
            "torch": torch.get_rng_state(),
            "record_bytes": self.record.size(),
        }
        save_checkpoint(self.out / "checkpoint.pt", state)

    def _result(self, error: float) -> RunResult:
        return RunResult(error, self.out / "final.safetensors", self.record.path)


@dataclass
class _Sums:
    """Over the steps of an epoch so far."""

    loss: float = 0.0
    wrong: int = 0
    lr: float = 0.0  # of the last step
    seconds: float = 0.0


def _split(images: ImageSet, held_out: int) -> tuple[ImageSet, ImageSet]:
    """The images to train on and those kept aside."""
    if held_out >= len(images):
        raise UserError(f"held_out is {held_out}; there are {len(images)} training images")
    if held_out == 0:
        return images, images.subset(torch.empty(0, dtype=torch.int64))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(_SPLIT_SEED))
    return images.subset(order[held_out:].sort().values), images.subset(order[:held_out].sort().values)


def _seeded(seed: int, epoch: int) -> torch.Generator:
    """The generator of an epoch's order: a function of seed and epoch, so that no state of it need be kept."""
    return torch.Generator().manual_seed((seed + 1) * 1_000_003 + epoch)


@contextmanager
def _deterministic() -> Iterator[None]:
    """PyTorch's deterministic algorithms, without filling fresh memory; as it was afterwards."""
    was = torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
