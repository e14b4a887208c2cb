"""The training loop, one for every method, data set and number of processes. A run killed at any moment goes on, to the
same bits where one process trains.

An output folder holds record.jsonl (see `record`), checkpoint.pt (see `checkpoint`) and, at the end, final.safetensors.
"""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tritkit import compress
from tritkit.activations import freeze_
from tritkit.data import ImageSet
from tritkit.data.image_folder import BadPictures
from tritkit.errors import TritkitError, UserError
from tritkit.surgery import after_step_, freeze_codes_
from tritkit.train import stages
from tritkit.train.checkpoint import State, load_checkpoint, save_checkpoint
from tritkit.train.density import density_penalty
from tritkit.train.determinism import deterministic, own_random
from tritkit.train.evaluate import Errors, count_errors
from tritkit.train.files import told
from tritkit.train.images import EvaluationImages, MemoryEvaluation, MemoryImages, TrainingImages, load_images, mixed
from tritkit.train.network import build_network, deployable, finish, layer_rows, save_trained, with_activations
from tritkit.train.objective import make_loss, set_rate
from tritkit.train.parallel import parallel
from tritkit.train.progress import ConsoleReporter, Reporter, Silent
from tritkit.train.ranks import Ranks, joined
from tritkit.train.recipe import Recipe
from tritkit.train.record import Record, header


@dataclass(frozen=True)
class RunResult:
    """What a finished run left: its error on the test images (0..1), where its files are, for a folder of pictures the
    error of five guesses, and whether the test images are the training images, for want of others.
    """

    test_error: float
    weights: Path
    record: Path
    test_top5_error: float | None = None
    trained_on_test: bool = False


def train(
    recipe: Recipe,
    data_root: str | Path | None,
    out_dir: str | Path,
    resume: bool = True,
    reporter: Reporter | None = None,
    *,
    accumulate: int = 1,
    shard: bool = False,
    workers: int | None = None,
    bad_pictures: BadPictures = "refuse",
) -> RunResult:
    """Train as `recipe` says and leave everything in `out_dir`.

    data_root: see `load_cifar10` and, for the data set "imagenet", `load_image_folder`.
    resume: a run in `out_dir` that was cut short goes on from its last checkpoint, to the same bits as if it had not
        been, and a finished one is only reported; without it, such a folder is refused.
    accumulate: each batch is computed in so many parts, one after the other, for devices with little memory. Batch norm
        and activation ranges see the parts; nothing else changes.
    shard: each of several processes keeps only its part of the weights, the gradients and the optimizer's averages
        (FSDP), for networks that are too large for one device otherwise. Not with deep_compression or density.
    workers: processes that decode pictures, for each process that trains; None: one a core.
    bad_pictures: "refuse" files that cannot be read as pictures, or "skip" them and name them in the record; the next
        picture of the folder takes the place.

    Under `torchrun` all its processes train on equal shares of each batch, and only the first writes and talks.
    Raises UserError for missing data, a folder that cannot be written or belongs to another recipe, a batch that cannot
    be shared equally; TritkitError if the loss diverges or another process ends.
    """
    with joined() as ranks:
        images, test, classes = load_images(recipe, data_root, ranks, workers, bad_pictures)
        setting = _Setting(recipe, Path(out_dir), ranks, accumulate, shard, classes, _reporter(reporter, ranks))
        return _trained(setting, images, test, resume)


def train_on(
    recipe: Recipe,
    images: ImageSet,
    test: ImageSet,
    out_dir: str | Path,
    resume: bool = True,
    reporter: Reporter | None = None,
    *,
    accumulate: int = 1,
    shard: bool = False,
) -> RunResult:
    """`train` with the training and the test images given."""
    with joined() as ranks:
        setting = _Setting(recipe, Path(out_dir), ranks, accumulate, shard, images.classes, _reporter(reporter, ranks))
        return _trained(setting, MemoryImages(images, recipe, ranks), MemoryEvaluation(test, recipe, ranks), resume)


@dataclass(frozen=True)
class _Setting:
    """What a run is given beside its images."""

    recipe: Recipe
    out: Path
    ranks: Ranks
    accumulate: int
    shard: bool
    classes: tuple[str, ...]
    reporter: Reporter


def _reporter(given: Reporter | None, ranks: Ranks) -> Reporter:
    return (given or ConsoleReporter()) if ranks.first else Silent()


def _trained(setting: _Setting, images: TrainingImages, test: EvaluationImages, resume: bool) -> RunResult:
    with told(setting.out):
        setting.out.mkdir(parents=True, exist_ok=True)
    if not resume and (setting.out / "record.jsonl").exists():
        raise UserError(f"{setting.out} holds a run already; choose another folder, or resume it")
    done = _finished(setting)
    if done is not None:
        return done
    with deterministic(setting.ranks.device), own_random(setting.ranks.device):
        run = _Run(setting, images)
        run.restore()
        run.steps()
        return run.conclude(test)


def _finished(setting: _Setting) -> RunResult | None:
    """The result, if the folder holds a finished run of this recipe."""
    if load_checkpoint(setting.out / "checkpoint.pt", setting.recipe) is None:
        return None
    last = Record(setting.out / "record.jsonl").rows()[-1]
    return _result(setting.out, last) if last["kind"] == "final" else None


def _result(out: Path, row: dict[str, Any]) -> RunResult:
    more = row.get("test_top5_error"), row.get("trained_on_test", False)
    return RunResult(row["test_error"], out / "final.safetensors", out / "record.jsonl", *more)


class _Run:
    """A run in progress: the network, its optimizer, and where it stands."""

    def __init__(self, setting: _Setting, images: TrainingImages) -> None:
        recipe, self.ranks, self.reporter = setting.recipe, setting.ranks, setting.reporter
        self.setting, self.recipe, self.out = setting, recipe, setting.out
        self.record = Record(self.out / "record.jsonl")
        self.images = images
        self.per_epoch = len(images) // recipe.batch_size
        self._check()
        torch.manual_seed(recipe.seed)
        begun = (self.out / "checkpoint.pt").exists()  # its tensors replace what `init` would give
        self.net = build_network(recipe, images, initial=not begun).to(self.ranks.device)
        self.optimizer = stages.make_optimizer(self.net, recipe)
        self.loss = make_loss(recipe, self.ranks.device, images)
        self.quantized = False
        self.step = 0  # steps finished
        self.sums = _Sums()
        self.parallel = parallel(self.ranks, setting.shard)

    def restore(self) -> None:
        """Go back to the last checkpoint, or begin."""
        state = load_checkpoint(self.out / "checkpoint.pt", self.recipe)
        self.ranks.wait()  # until all have read it
        if state is None:
            if self.ranks.first:
                self.record.start(header(self.recipe, self._parts()))
            self._save()
            return
        self.quantized = state["quantized"]
        self.net = self._filled(self.net, state["net"])
        self.optimizer = stages.make_optimizer(self.net, self.recipe)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self._restore_random(state)
        if self.ranks.first:
            self.sums = _Sums(**state["sums"])
            self.record.truncate(state["record_bytes"])
            if self._parts() != state.get("parts", _ALONE):
                self.record.append({"kind": "parts", "step": self.step, **self._parts()})

    def _filled(self, net: nn.Module, state: dict[str, Tensor]) -> nn.Module:
        """`net`, fresh from the recipe, in the state of a checkpoint."""
        if self.quantized:
            net = deployable(net, self.recipe)
        compress.restore_(net, state)
        net.load_state_dict(state)
        return net.to(self.ranks.device)

    def _gather(self) -> None:
        """Have the network in one piece in this process."""

        def build(state: dict[str, Tensor]) -> nn.Module:
            return self._filled(build_network(self.recipe, initial=False), state)

        self.net = self.parallel.gather(self.net, self.optimizer, build)

    def steps(self) -> None:
        """All steps that remain."""
        total = self.recipe.epochs * self.per_epoch
        self.reporter.start(self.step, total)
        try:
            while self.step < total:
                self._epoch(self.step // self.per_epoch)
        finally:
            self.reporter.stop()

    def conclude(self, test: EvaluationImages) -> RunResult:
        """Finish the weights, read the test images once, and write the final row."""
        self._gather()
        self.net = finish(self.net, self.recipe, self.images).to(self.ranks.device)
        errors = self._errors(test)
        row = {"kind": "final", "test_error": errors.top1, "test_images": errors.images, "layers": layer_rows(self.net)}
        row |= self._top5("test_top5_error", errors) | self._skipped() | stages.sizes(self.net)
        row |= {"trained_on_test": True} if test.trained_on else {}
        if self.ranks.first:
            save_trained(self.out / "final.safetensors", self.net, self.recipe, errors.top1, self.setting.classes)
            self.record.append(row)
        return _result(self.out, row)

    def _epoch(self, epoch: int) -> None:
        """What remains of an epoch; 0 is the first."""
        self._enter(epoch + 1)
        began = time.monotonic() - self.sums.seconds
        for images, labels in self.images.batches(epoch, self.step % self.per_epoch):
            self._step(images, labels)
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
            self._gather()
            self.net = with_activations(self.net, self.recipe, self.images).to(self.ranks.device)
            self.quantized = True
        if stages.share_due(self.net, self.recipe, epoch):
            stages.share(self.net, self.recipe)
            self.optimizer = stages.make_optimizer(self.net, self.recipe)
        if activations and activations.freeze_epoch and epoch >= max(activations.freeze_epoch, activations.from_epoch):
            freeze_(self.net)
        if self.recipe.freeze_codes_epoch and epoch >= self.recipe.freeze_codes_epoch:
            freeze_codes_(self.net)
        self.net.train()
        self.parallel.spread(self.net, self.optimizer)

    def _step(self, images: Tensor, labels: Tensor) -> None:
        """One step on this process's share of a batch."""
        self.sums.lr = set_rate(self.optimizer, self.recipe, self.step, self.per_epoch)
        self.optimizer.zero_grad()
        images, labels = mixed(images, labels, len(self.setting.classes), self.recipe, self.step)
        parts = self.setting.accumulate
        loss = 0.0
        for k, (some, answers) in enumerate(zip(images.chunk(parts), labels.chunk(parts), strict=True), 1):
            with nullcontext() if k == parts else self.parallel.alone():
                loss += self._backward(some, answers) / parts
        self.optimizer.step()
        after_step_(self.net)
        self.step += 1
        if not math.isfinite(loss):
            raise TritkitError(f"the loss is {loss} at step {self.step}; lower lr or lengthen the warm-up")
        self.sums.loss += loss / self.ranks.world

    def _backward(self, images: Tensor, labels: Tensor) -> float:
        """Add the gradients of these images; returns their loss."""
        low = self.recipe.precision == "bfloat16"
        with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=low):
            logits = self.parallel(images).float()
            loss = self.loss(logits, images, labels)
        if self.recipe.density:
            loss = loss + density_penalty(self.net, self.recipe.density)
        (loss / self.setting.accumulate).backward()  # type: ignore[no-untyped-call]
        largest = labels if labels.dim() == 1 else labels.argmax(1)
        self.sums.wrong += int((logits.argmax(1) != largest).sum())
        return float(loss.item())

    def _end(self, epoch: int) -> None:
        with self.parallel.whole(self.net):
            held_out = self._errors(self.images.held_out) if len(self.images.held_out) else None
            layers = layer_rows(self.net)
        self._pool()
        row: dict[str, Any] = {
            "kind": "epoch",
            "epoch": epoch,
            "step": self.step,
            "loss": self.sums.loss / self.per_epoch,
            "train_error": self.sums.wrong / (self.per_epoch * self.recipe.batch_size),
            "held_out_error": None if held_out is None else held_out.top1,
            "lr": self.sums.lr,
            "seconds": round(self.sums.seconds, 2),
            "layers": layers,
        }
        row |= self._top5("held_out_top5_error", held_out) | self._skipped()
        if self.ranks.first:
            self.record.append(row)
        self.sums = _Sums()
        self._save()
        self.reporter.epoch(row)

    def _errors(self, images: EvaluationImages) -> Errors:
        """Over the shares of all processes."""
        mine = count_errors(self.net, images.batches(), some=self.ranks.world == 1)
        counts = self.ranks.sums([mine.images, mine.wrong, mine.wrong_in_5])
        return Errors(*(round(count) for count in counts))

    def _top5(self, key: str, errors: Errors | None) -> dict[str, float]:
        return {key: errors.top5} if errors is not None and self.recipe.dataset == "imagenet" else {}

    def _skipped(self) -> dict[str, list[str]]:
        found = self.ranks.gather(self.images.skipped())
        return {"skipped": found} if found else {}

    def _pool(self) -> None:
        """Sums of all processes, in the first; 0 in the others."""
        loss, wrong = self.ranks.sums([self.sums.loss, self.sums.wrong])
        self.sums.loss, self.sums.wrong = (loss, round(wrong)) if self.ranks.first else (0.0, 0)

    def _save(self) -> None:
        self._pool()
        weights, averages = (self.parallel.state(part.state_dict()) for part in (self.net, self.optimizer))
        if not self.ranks.first:
            return
        generator = self.images.generator
        state: State = {
            "recipe": self.recipe.model_dump(mode="json"),
            "net": weights,
            "optimizer": averages,
            "quantized": self.quantized,
            "step": self.step,
            "sums": vars(self.sums),
            "augmentation": None if generator is None else generator.get_state(),
            "torch": torch.get_rng_state(),
            "parts": self._parts(),
            "record_bytes": self.record.size(),
        }
        save_checkpoint(self.out / "checkpoint.pt", state)

    def _restore_random(self, state: State) -> None:
        """The states of the first process; the numbers that methods draw in the others begin anew."""
        if self.images.generator is not None:
            self.images.generator.set_state(state["augmentation"])
        torch.set_rng_state(state["torch"])
        if not self.ranks.first:
            torch.manual_seed(hash((self.recipe.seed, self.ranks.rank, self.step)))

    def _check(self) -> None:
        if self.setting.shard and (self.recipe.density or self.recipe.deep_compression):
            raise UserError("shards cannot be pruned, nor drawn to a density; train without --shard")
        size, parts = self.recipe.batch_size, self.ranks.world * self.setting.accumulate
        if self.setting.accumulate < 1 or size % parts:
            raise UserError(
                f"batch_size is {size}, which {self.ranks.world} processes with accumulate = {self.setting.accumulate}"
                " cannot share equally; choose numbers whose product divides it"
            )
        if self.recipe.epochs and self.per_epoch == 0:
            raise UserError(f"batch_size is {size}, but there are only {len(self.images)} training images")

    def _parts(self) -> dict[str, int]:
        parts = {"processes": self.ranks.world, "accumulate": self.setting.accumulate}
        return {**parts, "sharded": True} if self.parallel.sharded else parts


_ALONE = {"processes": 1, "accumulate": 1}


@dataclass
class _Sums:
    """Over the steps of an epoch so far."""

    loss: float = 0.0
    wrong: int = 0
    lr: float = 0.0  # of the last step
    seconds: float = 0.0
