"""From image files and arrays to a network's input, as the network's file says. NumPy, and Pillow for pictures."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritkit.errors import UserError

_LIMIT = 1 << 31  # bytes an array may have
_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
_KINDS = "PNG, JPEG, WebP, .npy or .npz"


@dataclass(frozen=True)
class Preprocessing:
    """What the network wants: channels, height, width; (pixel / 255 − mean) / std a channel where known; for networks
    of photographs the pixels that the short side is scaled to before the middle is cut out.
    """

    shape: tuple[int, int, int]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    classes: tuple[str, ...]
    short_side: int | None = None


def preprocessing_of(shape: tuple[int | None, ...], facts: Mapping[str, Any]) -> Preprocessing:
    """From an input shape [N, C, H, W] and a file's `tritkit.input`. UserError where they make no sense."""
    sizes = tuple(size for size in shape[1:] if size is not None)
    if len(shape) != 4 or len(sizes) != 3:
        raise UserError(f"the network's input has shape {list(shape)}; images need [N, C, H, W]: use tritkit.Session")
    try:
        mean, std = (tuple(float(v) for v in facts[key]) if facts.get(key) else None for key in ("mean", "std"))
        classes = tuple(str(name) for name in facts.get("classes") or ())
        short_side = int(facts["short_side"]) if facts.get("short_side") else None
    except (TypeError, ValueError) as error:
        raise UserError(f"the file's preprocessing cannot be read ({error}); export it again") from error
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != sizes[0]:
            raise UserError(f"the file's {name} has {len(values)} values for {sizes[0]} channels; export it again")
    if short_side is not None and not max(sizes[1:]) <= short_side <= 1 << 14:
        raise UserError(f"the file's short_side is {short_side}; at least the input's size is needed: export it again")
    if std is not None and not all(0 < v < float("inf") for v in std):
        raise UserError(f"the file's std is {list(std)}; each must be above 0: export it again")
    return Preprocessing((sizes[0], sizes[1], sizes[2]), mean, std, classes, short_side)


def read_images(path: Path, wanted: Preprocessing) -> NDArray[np.float32]:
    """float32 [N, C, H, W] from a picture or an array file, ready for the network.

    uint8 arrays are pixels, in [N, C, H, W], [C, H, W] or, for pictures, [H, W, C]; float arrays are taken as they are.
    Pictures are turned upright; those of another size are scaled on their short side and cut in the middle. UserError
    for what does not fit.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; give image files ({_KINDS})")
    if not path.is_file():
        raise UserError(f"no image {path}; give image files ({_KINDS})")
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        return _prepared(_array(path), wanted, path)
    if suffix in _PICTURES:
        return normalised(_picture(path, wanted)[None], wanted, path)
    raise UserError(f"{path} is no image file that is read here; give {_KINDS}")


def _picture(path: Path, wanted: Preprocessing) -> NDArray[np.uint8]:
    """uint8 [C, H, W]."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        hint = "pip install 'tritkit[train]', or give an .npy file"
        raise UserError(f"{path} needs Pillow to be read; {hint}") from error
    channels, height, width = wanted.shape
    if channels not in (1, 3):
        raise UserError(f"the network takes {channels} channels, pictures have 1 or 3; give an .npy file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                plain = ImageOps.exif_transpose(image).convert("RGB" if channels == 3 else "L")
                if plain.size != (width, height) or wanted.short_side:
                    margin = (1 - max(width, height) / (wanted.short_side or max(width, height))) / 2
                    plain = ImageOps.fit(plain, (width, height), Image.Resampling.BILINEAR, bleed=margin)
                pixels = np.asarray(plain, np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{path} cannot be read as an image ({_reason(error)}); give {_KINDS}") from error
    return pixels.transpose(2, 0, 1) if channels == 3 else pixels[None]


def _array(path: Path) -> NDArray[Any]:
    try:
        if path.suffix.lower() == ".npz":
            return _from_npz(path)
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(loaded, np.ndarray) or loaded.nbytes > _LIMIT:
            raise UserError(f"{path} holds no array of at most {_LIMIT:,} bytes")
        return loaded
    except UserError:
        raise
    except (OSError, ValueError, EOFError, OverflowError, MemoryError, SyntaxError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no whole array file ({_reason(error)}); write it with numpy.save") from error


def _from_npz(path: Path) -> NDArray[Any]:
    """The array `images`, or the only one."""
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > _LIMIT:
            raise UserError(f"{path} unpacks to more than {_LIMIT:,} bytes; split it")
    with np.load(path, allow_pickle=False) as arrays:
        names = list(arrays)
        if "images" not in names and len(names) != 1:
            raise UserError(f"{path} holds {names or 'nothing'}; name the array to run 'images'")
        return np.asarray(arrays["images" if "images" in names else names[0]])


def _prepared(array: NDArray[Any], wanted: Preprocessing, path: Path) -> NDArray[np.float32]:
    given = f"{path} holds {array.dtype} {list(array.shape)}"
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise UserError(f"{given}; allowed: uint8 pixels, or floats normalised as in training")
    if array.ndim == 3:
        channels = wanted.shape[0]
        last = array.dtype == np.uint8 and array.shape[-1] == channels and array.shape[0] != channels
        array = np.moveaxis(array, -1, 0)[None] if last else array[None]
    if array.ndim != 4 or array.shape[1:] != wanted.shape or len(array) == 0:
        raise UserError(f"{given}; the network wants {['N', *wanted.shape]}, N at least 1".replace("'N'", "N"))
    if array.dtype == np.uint8:
        return normalised(array, wanted, path)
    with np.errstate(over="ignore"):
        images = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(images).all():
        raise UserError(f"{path} has NaN or infinite values; give finite ones")
    return images


def normalised(pixels: NDArray[Any], wanted: Preprocessing, source: Path | str) -> NDArray[np.float32]:
    """(pixel / 255 − mean) / std in float32, as in training. UserError if the file does not say them."""
    if wanted.mean is None or wanted.std is None:
        lack = f"the model file says no mean and std, so {source} cannot be prepared"
        raise UserError(f"{lack}; give normalised floats (.npy)")
    mean, std = (np.array(v, np.float32).reshape(1, -1, 1, 1) for v in (wanted.mean, wanted.std))
    return np.ascontiguousarray((pixels.astype(np.float32) / np.float32(255) - mean) / std)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
