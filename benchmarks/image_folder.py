"""How many pictures a second come out of a folder: our loader beside the plain one of Pillow and PyTorch, in turns.

    python benchmarks/image_folder.py --data FOLDER      a folder with a folder of pictures for each class

Both end at the same place: float32 batches [N, 3, 224, 224], normalised, in this process. The plain loader does what
the usual ImageNet script does: Pillow decodes, scales and cuts, each worker makes a normalised float32 tensor of each
picture, PyTorch's DataLoader stacks and hands them over. Ours decodes only as large as needed, computes only the pixels
of the crop, hands over uint8 and normalises a batch at once. Writes results/image_folder.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tritkit.bench.facts import machine_facts
from tritkit.data import ImageFolder, PictureLoader, RandomCrop, RandomResizedCrop, load_image_folder, normalise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 50
RESULT = Path(__file__).resolve().parent.parent / "results" / "image_folder.json"


class Plain(Dataset[tuple[Tensor, int]]):
    """The usual script's data set."""

    def __init__(self, folder: ImageFolder, resized: bool) -> None:
        self.folder, self.resized = folder, resized
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.folder.path(index)) as file:
            image = file.convert("RGB")
        image = self._part(image) if self.resized else self._anywhere(image)
        if torch.rand(1) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return (pixels - self.mean) / self.std, int(self.folder.labels[index])

    def _anywhere(self, image: Image.Image) -> Image.Image:
        scale = 256 / min(image.size)
        image = image.resize((max(int(image.width * scale), 256), max(int(image.height * scale), 256)), 2)
        left, top = (int(torch.randint(0, side - 223, (1,))) for side in image.size)
        return image.crop((left, top, left + 224, top + 224))

    def _part(self, image: Image.Image) -> Image.Image:
        for _ in range(10):
            area = image.width * image.height * float(torch.empty(1).uniform_(0.08, 1))
            ratio = math.exp(float(torch.empty(1).uniform_(math.log(3 / 4), math.log(4 / 3))))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= image.width and 0 < h <= image.height:
                left, top = (
                    int(torch.randint(0, image.width - w + 1, (1,))),
                    int(torch.randint(0, image.height - h + 1, (1,))),
                )
                return image.crop((left, top, left + w, top + h)).resize((224, 224), 2)
        return image.resize((224, 224), 2)


def plain(folder: ImageFolder, resized: bool, workers: int) -> int:
    """Reads all pictures; how many."""
    loader: DataLoader[Any] = DataLoader(Plain(folder, resized), BATCH, shuffle=True, num_workers=workers)
    return sum(len(images) for images, _ in loader)


def ours(folder: ImageFolder, resized: bool, workers: int) -> int:
    """Reads all pictures; how many."""
    loader = PictureLoader(folder, RandomResizedCrop() if resized else RandomCrop(), 0, workers, replace=True)
    order = torch.randperm(len(folder)).split(BATCH)
    return sum(len(normalise(batch.images, MEAN, STD)) for batch in loader.batches([part.tolist() for part in order]))


def rate(read: Callable[[ImageFolder, bool, int], int], folder: ImageFolder, resized: bool, workers: int) -> float:
    """Pictures a second."""
    start = time.perf_counter()
    return read(folder, resized, workers) / (time.perf_counter() - start)


def measure(folder: ImageFolder, rounds: int) -> list[dict[str, Any]]:
    """A row for each crop and number of workers."""
    rows = []
    for resized in (False, True):
        for workers in (0, 1, 2):
            pairs = [[rate(read, folder, resized, workers) for read in (ours, plain)] for _ in range(rounds)]
            mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
            crop = "random resized crop" if resized else "256, random crop"
            ratio = statistics.median(a / b for a, b in pairs)
            rows.append({"crop": crop, "workers": workers, "ours": mine, "plain": theirs, "ratio": ratio})
            print(f"{crop:20s} {workers} workers: ours {mine:5.0f}, plain {theirs:5.0f} a second, {ratio:.2f} times")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder with a folder of pictures for each class")
    parser.add_argument("--pictures", type=int, default=400, help="how many are read, over all classes")
    parser.add_argument("--rounds", type=int, default=3, help="turns; the median counts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = load_image_folder(options.data, "train")
    folder = folder.subset(torch.arange(0, len(folder), max(len(folder) // options.pictures, 1))[: options.pictures])
    ours(folder, False, 0)  # so that both find the files in memory
    rows = measure(folder, options.rounds)
    sizes = [Image.open(folder.path(k)).size for k in range(0, len(folder), 10)]
    median = [int(statistics.median(side)) for side in zip(*sizes, strict=True)]
    machine = machine_facts(sorted(os.sched_getaffinity(0)))
    facts = {"pictures": len(folder), "median_size": median, "rows": rows, "machine": machine}
    RESULT.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
