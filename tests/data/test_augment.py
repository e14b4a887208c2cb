"""Augmentation against a plain loop, image by image."""

from __future__ import annotations

import torch

from tritkit.data import crop_and_flip, cutmix, normalise


def _numbered(n: int) -> torch.Tensor:
    return torch.randint(1, 256, (n, 3, 8, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def _all_variants(image: torch.Tensor, pad: int) -> list[bytes]:
    """Every crop of the padded image and its mirror, written out with explicit loops."""
    c, h, w = image.shape
    big = torch.zeros(c, h + 2 * pad, w + 2 * pad, dtype=torch.uint8)
    big[:, pad : pad + h, pad : pad + w] = image
    crops = [big[:, i : i + h, j : j + w] for i in range(2 * pad + 1) for j in range(2 * pad + 1)]
    mirrored = [crop[:, :, torch.arange(w - 1, -1, -1)] for crop in crops]
    return [crop.contiguous().numpy().tobytes() for crop in crops + mirrored]


def test_every_result_is_a_crop_or_its_mirror_and_all_occur() -> None:
    image = _numbered(1)
    variants = _all_variants(image[0], pad=1)
    batch = crop_and_flip(image.expand(600, -1, -1, -1), torch.Generator().manual_seed(1), pad=1)
    found = {variants.index(one.contiguous().numpy().tobytes()) for one in batch}
    assert found == set(range(18))  # 3 x 3 offsets, mirrored or not


def test_each_image_stays_in_its_place() -> None:
    images = _numbered(5)
    batch = crop_and_flip(images, torch.Generator().manual_seed(2), pad=2)
    assert batch.dtype == torch.uint8
    assert batch.is_contiguous(memory_format=torch.channels_last)
    for before, after in zip(images, batch, strict=True):
        assert after.contiguous().numpy().tobytes() in _all_variants(before, pad=2)


def test_seeded() -> None:
    images = _numbered(9)
    a, b, c = (crop_and_flip(images, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_normalise() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    out = normalise(images, (0.5, 0.2, 0.0), (0.25, 1.0, 2.0))
    assert out.flatten().tolist() == [-2.0, 0.0, 0.5]


def test_cutmix_puts_one_rectangle_of_another_image_into_each() -> None:
    n, height, width = 7, 9, 12
    images = torch.arange(n).view(n, 1, 1, 1).expand(n, 3, height, width).contiguous(memory_format=torch.channels_last)
    labels = torch.tensor([4, 0, 3, 3, 1, 2, 0])
    shares = set()
    for seed in range(200):
        mixed, answers = cutmix(images, labels, 5, torch.Generator().manual_seed(seed))
        assert mixed.is_contiguous(memory_format=torch.channels_last)
        places = []
        for i in range(n):
            values, counts = mixed[i].unique(return_counts=True)
            foreign = [int(v) for v in values if v != i]
            assert len(foreign) <= 1
            other = foreign[0] if foreign else i
            expected = [0.0] * 5
            share = counts[values == other].sum().item() / (3 * height * width) if foreign else 0.0
            expected[int(labels[i])] += 1 - share
            expected[int(labels[other])] += share
            assert torch.allclose(answers[i], torch.tensor(expected), atol=1e-6)
            if foreign:
                rows, columns = (mixed[i, 0] == other).nonzero(as_tuple=True)
                box = (rows.min().item(), rows.max().item(), columns.min().item(), columns.max().item())
                assert len(rows) == (box[1] - box[0] + 1) * (box[3] - box[2] + 1)
                places.append(box)
                shares.add(share)
        assert len(set(places)) <= 1
    assert min(shares) < 0.02
    assert max(shares) > 0.6
    assert torch.equal(images[3], torch.full_like(images[3], 3))  # what was given stays as it was
