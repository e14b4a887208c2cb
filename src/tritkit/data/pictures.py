"""One picture file, read safely: whatever is wrong with it becomes a `BadPicture` of one sentence."""

from __future__ import annotations

import os
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

from tritkit.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")  # what the bytes may be, whatever the name says; ImageNet has a PNG as .JPEG
_DEEP = ("I", "F")  # the first letter of Pillow's modes with more than 8 bits a channel
_ORIENTATION = 0x0112  # EXIF's tag; 1 is upright


class BadPicture(UserError):
    """The file is no picture that can be read; the message names it and says why."""


def read_picture(path: str | os.PathLike[str], enough: int | None = None) -> Image.Image:
    """The picture at `path` in RGB, upright as its EXIF orientation says; transparency is dropped.

    enough: pixels that the short side must keep; a larger JPEG may be decoded to a half, a quarter or an eighth of its
        size, which is faster. None: full size.

    At most Pillow's `MAX_IMAGE_PIXELS` (89 million) are decoded. Raises BadPicture for a file that is missing,
    truncated, corrupt, too large, deeper than 8 bits a channel, or neither JPEG, PNG, WebP nor BMP.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                if enough is not None:
                    image.draft("RGB", (enough, enough))
                return _upright(image, _rgb(image))
    except Exception as error:  # a damaged file fails in many ways, all of them the file's fault
        raise BadPicture(f"{os.fspath(path)} cannot be read as a picture: {_reason(error)}") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode[0] in _DEEP:
        raise ValueError("it has more than 8 bits a channel; convert it to an 8-bit file")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    image.load()  # what is wrong with the file shows here; the file can be closed then
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(image: Image.Image, rgb: Image.Image) -> Image.Image:
    orientation = image.getexif().get(_ORIENTATION, 1)
    if orientation == 1:
        return rgb
    rgb.getexif()[_ORIENTATION] = orientation
    return ImageOps.exif_transpose(rgb)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is neither JPEG, PNG, WebP nor BMP"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
