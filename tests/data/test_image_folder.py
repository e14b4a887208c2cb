"""Folders of pictures: layouts, every kind of file in them, crops, and batches that nothing but the seed decides."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_folder import make_folder, noise
from PIL import Image

from tritkit.data import (
    BadPicture,
    CentreCrop,
    PictureLoader,
    RandomCrop,
    RandomResizedCrop,
    load_image_folder,
    read_picture,
)
from tritkit.errors import UserError

CROP = CentreCrop(16, 20)


def test_classes_and_pictures_in_the_order_of_their_names(tmp_path: Path) -> None:
    root = make_folder(tmp_path, classes=3, each=2)
    found = load_image_folder(root, "train")
    assert found.classes == ("class0", "class1", "class2")
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert [Path(found.path(k)) for k in (0, 3)] == [root / "train/class0/0.jpg", root / "train/class1/1.jpg"]
    few = found.subset(torch.tensor([4, 1]))
    assert [Path(few.path(k)) for k in (0, 1)] == [root / "train/class2/0.jpg", root / "train/class0/1.jpg"]
    assert load_image_folder(root, "val").root == root / "val"


def test_class_folders_alone_are_both_splits(tmp_path: Path) -> None:
    root = make_folder(tmp_path, splits=())
    assert load_image_folder(root, "train").root == load_image_folder(root, "val").root == root


def test_kaggles_layout(tmp_path: Path) -> None:
    make_folder(tmp_path / "ILSVRC/Data/CLS-LOC")
    assert len(load_image_folder(tmp_path, "val")) == 12


def _flatten(root: Path) -> list[str]:
    """Put the pictures of `root`/val into one folder; the rows of their table."""
    rows = []
    for k, path in enumerate(sorted((root / "val").glob("*/*.jpg"))):
        name = f"val_{(k * 5) % 12:08}"  # classes in no order
        rows.append(f"{name},{path.parent.name} 85 1 499 272 {path.parent.name} 1 2 3 4")
        path.rename(root / "val" / f"{name}.JPEG")
    for empty in (root / "val").glob("class*"):
        empty.rmdir()
    return rows


def test_imagenets_val_in_one_folder(tmp_path: Path) -> None:
    base = tmp_path / "ILSVRC/Data/CLS-LOC"
    make_folder(base)
    sorted_ones = load_image_folder(tmp_path, "val")
    pixels = {Path(sorted_ones.path(k)).read_bytes(): int(sorted_ones.labels[k]) for k in range(12)}
    rows = _flatten(base)
    with pytest.raises(UserError, match=r"sort them into a folder a class, or put Kaggle's LOC_val_solution\.csv into"):
        load_image_folder(tmp_path, "val")
    table = tmp_path / "LOC_val_solution.csv"
    table.write_text("\n".join(["ImageId,PredictionString", *rows]) + "\n")
    for root in (tmp_path, base):
        found = load_image_folder(root, "val")
        assert found.classes == sorted_ones.classes == load_image_folder(root, "train").classes
        few = found.subset(torch.arange(1, 12))
        assert {Path(few.path(k)).read_bytes(): int(few.labels[k]) for k in range(11)}.items() <= pixels.items()
    table.write_text("\n".join(["ImageId,PredictionString", *rows[1:]]))
    with pytest.raises(UserError, match=r"1 bad entries .*val_00000000 has no class in .*LOC_val_solution\.csv"):
        load_image_folder(tmp_path, "val")
    assert len(load_image_folder(tmp_path, "val", "skip")) == 11
    for text in ("ImageId,Label\na,b\n", "ImageId,PredictionString\nval_00000000,\n"):
        table.write_text(text)
        with pytest.raises(UserError, match=r"line 2 of .*expected are the columns ImageId and PredictionString"):
            load_image_folder(tmp_path, "val")
    table.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"cannot read .*LOC_val_solution"):
        load_image_folder(tmp_path, "val")


def test_other_layouts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*nowhere"):
        load_image_folder(tmp_path / "nowhere", "train")
    with pytest.raises(UserError, match="no pictures in folders of their classes"):
        load_image_folder(tmp_path, "train")
    noise(0).save(tmp_path / "a.jpg")
    with pytest.raises(UserError, match="sort them into a folder a class"):
        load_image_folder(tmp_path, "train")
    make_folder(tmp_path, splits=("train",))
    with pytest.raises(UserError, match="has train but no val"):
        load_image_folder(tmp_path, "val")


def test_what_is_no_picture_is_named_and_refused_or_skipped(tmp_path: Path) -> None:
    root = make_folder(tmp_path, classes=2, each=2)
    (root / "train/class0/notes.txt").write_text("x")
    (root / "train/class0/.DS_Store").write_text("x")
    (root / "train/class1/deeper").mkdir()
    (root / "train/empty").mkdir()
    with pytest.raises(UserError, match=r"3 bad entries \(.*notes\.txt is no picture.*deeper.*empty has no pictures\)"):
        load_image_folder(root, "train")
    found = load_image_folder(root, "train", "skip")
    assert (len(found), len(found.skipped)) == (4, 3)
    assert found.classes == ("class0", "class1", "empty")  # the numbers of the classes do not move


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("L", "a.jpg"),
        ("CMYK", "a.jpg"),
        ("P", "a.png"),
        ("RGBA", "a.png"),
        ("LA", "a.png"),
        ("1", "a.bmp"),
        ("RGB", "a.webp"),
    ],
)
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, mode: str, name: str) -> None:
    image = noise(1).convert(mode)
    path = save(image, tmp_path / name, **({"lossless": True} if name.endswith("webp") else {"quality": 98}))
    read = read_picture(path)
    assert (read.mode, read.size) == ("RGB", (60, 40))
    error = np.abs(np.asarray(read, np.int64) - np.asarray(image.convert("RGB"), np.int64)).mean()
    assert error <= (4 if name.endswith("jpg") else 0)


def test_a_palette_with_transparency(tmp_path: Path) -> None:
    path = save(noise(1).convert("P"), tmp_path / "a.png", transparency=bytes(range(256)))
    assert read_picture(path).mode == "RGB"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_it_upright(tmp_path: Path, orientation: int) -> None:
    stored = noise(2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    read = np.asarray(read_picture(save(stored, tmp_path / "a.png", exif=exif)))
    p = np.asarray(stored)
    turned = p.transpose(1, 0, 2)
    expected = [p, p[:, ::-1], p[::-1, ::-1], p[::-1], turned, turned[:, ::-1], turned[::-1, ::-1], turned[::-1]]
    assert np.array_equal(read, expected[orientation - 1])


def _bomb(path: Path, width: int, height: int) -> None:
    """A PNG of a few bytes whose header promises width x height."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def _bad_files(folder: Path) -> dict[str, str]:
    """Files that cannot be read, and what is said of them."""
    whole = save(noise(3), folder / "whole.jpg").read_bytes()
    (folder / "whole.jpg").unlink()
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("not a picture")
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "head.jpg").write_bytes(whole[:30])
    (folder / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    save(noise(3), folder / "gif.jpg", format="GIF")
    save(Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60)), folder / "deep.png")
    _bomb(folder / "bomb.png", 60_000, 60_000)
    _bomb(folder / "large.png", 12_000, 9_000)
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    said = dict.fromkeys(("empty.jpg", "text.jpg", "gif.jpg", "head.jpg"), "neither JPEG, PNG, WebP nor BMP")
    said |= {"cut.jpg": "[Tt]runcated", "torn.png": "", "deep.png": "8 bits", "bomb.png": "bomb", "large.png": "bomb"}
    return said | {"head.jpg": ""}


def test_bad_files_are_bad_pictures(tmp_path: Path) -> None:
    for name, sentence in _bad_files(tmp_path).items():
        with pytest.raises(BadPicture, match=f"{name} cannot be read as a picture: .*{sentence}"):
            read_picture(tmp_path / name)
    for missing in ("absent.jpg", "loop.jpg"):
        with pytest.raises(BadPicture, match=r"No such file|symbolic links"):
            read_picture(tmp_path / missing)


def test_bad_files_in_batches(tmp_path: Path) -> None:
    root = make_folder(tmp_path, classes=2, each=3, splits=())
    (root / "class0/1.jpg").write_bytes(b"broken")
    folder = load_image_folder(root, "val")
    left_out = PictureLoader(folder, CROP, seed=0, workers=0, replace=False)
    (batch,) = left_out.batches([range(6)])
    assert batch.labels.tolist() == [0, 0, 1, 1, 1]
    assert [reason.partition(" cannot")[0] for reason in batch.bad] == [str(root / "class0/1.jpg")]
    replaced = PictureLoader(folder, CROP, seed=0, workers=0, replace=True)
    (batch,) = replaced.batches([[1, 3]])
    assert batch.labels.tolist() == [0, 1]
    assert torch.equal(batch.images[0], next(left_out.batches([[2]])).images[0])
    with pytest.raises(UserError, match=r"no picture of a batch can be read: .*1\.jpg"):
        list(left_out.batches([[0], [1]]))


@pytest.mark.parametrize("size", [(60, 40), (40, 60), (33, 33), (7, 300), (500, 2)])
@pytest.mark.parametrize("crop", [CentreCrop(24, 32), RandomCrop(24, 32)])
def test_crops_are_those_of_the_scaled_picture(crop: CentreCrop | RandomCrop, size: tuple[int, int]) -> None:
    """Against scaling all of it and cutting, up to rounding: scaling a part must look at the pixels beside it too."""
    image = noise(5, *size)
    scale = 32 / min(size)
    whole = np.asarray(image.resize((int(size[0] * scale), int(size[1] * scale)), Image.Resampling.BILINEAR), np.int64)
    got = np.asarray(crop(image, np.random.default_rng(7)), np.int64)
    assert got.shape == (24, 24, 3)
    random = np.random.default_rng(7)
    height, width = whole.shape[:2]
    left, top = (width - 24) // 2, (height - 24) // 2
    if isinstance(crop, RandomCrop):
        left, top = int(random.integers(0, width - 23)), int(random.integers(0, height - 23))
    want = whole[top : top + 24, left : left + 24]
    if isinstance(crop, RandomCrop) and random.random() < 0.5:
        want = want[:, ::-1]
    assert np.abs(got - want).max() <= 1


def test_random_resized_parts() -> None:
    crop = RandomResizedCrop(8)
    random = np.random.default_rng(0)
    areas, ratios = [], []
    for _ in range(2000):
        left, top, right, bottom = crop._part(100, 80, random)
        assert 0 <= left < right <= 100
        assert 0 <= top < bottom <= 80
        areas.append((right - left) * (bottom - top) / 8000)
        ratios.append(np.log((right - left) / (bottom - top)))
    assert 0.07 < min(areas) < 0.1
    assert max(areas) > 0.9
    assert np.abs(ratios).max() < np.log(4 / 3) + 0.1
    assert abs(np.mean(ratios)) < 0.05
    assert crop._part(1000, 10, random) == (493, 0, 506, 10)  # nothing fits: 4 : 3 in the middle
    assert crop(noise(1, 1, 1), random).size == (8, 8)


def test_only_seed_epoch_and_place_decide_the_pixels(tmp_path: Path) -> None:
    folder = load_image_folder(make_folder(tmp_path, classes=2, each=4), "train")

    def pixels(order: list[list[int]], epoch: int = 0, workers: int = 0, seed: int = 1) -> torch.Tensor:
        loader = PictureLoader(folder, RandomCrop(16, 20), seed, workers, replace=True)
        before = torch.get_rng_state()
        images = torch.cat([batch.images for batch in loader.batches(order, epoch)])
        assert torch.equal(before, torch.get_rng_state())
        return images

    whole = pixels([[0, 1, 2, 3], [4, 5, 6, 7]])
    assert torch.equal(whole, pixels([[0, 1, 2, 3], [4, 5, 6, 7]], workers=2))
    assert torch.equal(whole[[6, 3]], pixels([[6], [3]]))
    assert not torch.equal(whole, pixels([[0, 1, 2, 3], [4, 5, 6, 7]], epoch=1))
    assert not torch.equal(whole, pixels([[0, 1, 2, 3], [4, 5, 6, 7]], seed=2))
    assert whole.dtype == torch.uint8


def test_a_large_jpeg_is_decoded_smaller(tmp_path: Path) -> None:
    path = save(noise(4, 640, 480), tmp_path / "a.jpg", quality=95)
    assert read_picture(path, 100).size == (160, 120)
    crops = (CROP(read_picture(path, enough), np.random.default_rng(0)) for enough in (40, None))
    small, large = (np.asarray(cut, np.int64) for cut in crops)
    assert np.abs(small - large).mean() < 3
