"""`tritkit pack` and `tritkit unpack`: a network's file for download, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tritkit.cli.output import Facts, Json, emit, percent, say, table
from tritkit.cli.running import model_path
from tritkit.cli.writing import check_place, write_place
from tritkit.errors import ModelFileError, TritkitError, UserError

_MOST = 1 << 31  # bytes of a file
_Out = Annotated[Path, typer.Option("--out", "-o", help="The file to write.")]


def pack_command(
    model: Annotated[str, typer.Argument(help="An .onnx file of tritkit, or the name of a packaged network.")],
    out: _Out,
    as_json: Json = False,
) -> None:
    """Pack a network for download: codes near their entropy.

    tritkit unpack gives the same file back, byte for byte.
    """
    from dataclasses import asdict

    from tritkit.packing import layer_sizes, pack, unpack

    path = model_path(model)
    check_place(out, path)
    data = _read(path)
    try:
        packed = pack(data)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
    if unpack(packed) != data:
        raise TritkitError(f"{path} does not come back as it was; nothing was written. Please report this")
    write_place(out, packed)
    facts = {
        "model": str(path),
        "file": str(out),
        "bytes_before": len(data),
        "bytes": len(packed),
        "layers": [asdict(row) for row in layer_sizes(data)],
    }
    emit(facts, as_json, _render)


def unpack_command(
    packed: Annotated[Path, typer.Argument(help="A file of tritkit pack.")],
    out: _Out,
    as_json: Json = False,
) -> None:
    """Unpack a network that was packed for download.

    Nothing is written unless it is the file that was packed, byte for byte.
    """
    from tritkit.packing import unpack

    check_place(out, packed)
    try:
        data = unpack(_read(packed))
    except ModelFileError as error:
        raise ModelFileError(f"{packed}: {error}") from error
    write_place(out, data)
    emit({"packed": str(packed), "file": str(out), "bytes": len(data)}, as_json, _render_unpacked)


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise UserError(f"no file {path}; give the file to read")
    if path.stat().st_size > _MOST:
        raise ModelFileError(f"{path} has {path.stat().st_size:,} bytes; files of up to {_MOST:,} are read")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _render(facts: Facts, console: Console) -> None:
    keys = ("two_bits", "five_a_byte", "packed")
    rows = [
        [row["name"], row["weights"], percent(row["density"]), *(row[key] for key in keys), round(row["entropy"])]
        for row in facts["layers"]
    ]
    columns = ["layer", "weights", "not zero", "2 bits", "5 a byte", "packed", "entropy"]
    console.print(table(columns, rows, "bytes of the codes"))
    totals = [sum(row[key] for row in facts["layers"]) for key in keys]
    bound = sum(row["entropy"] for row in facts["layers"])
    names = ("2 bits", "five a byte", "packed")
    said = ", ".join(f"{name} {total:,}" for name, total in zip(names, totals, strict=True))
    say(console, f"\ncodes: {said}, entropy {bound:,.0f} bytes")
    say(console, f"{facts['file']}: {facts['bytes']:,} bytes, {facts['bytes_before']:,} before")


def _render_unpacked(facts: Facts, console: Console) -> None:
    say(console, f"{facts['file']}: {facts['bytes']:,} bytes, the file that was packed")
