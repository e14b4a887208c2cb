"""`tritkit recipes`: the training recipes that ship with the package, and how to take one away."""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tritkit.cli.output import Facts, Json, emit, table, talk
from tritkit.errors import TritkitError, UserError

app = typer.Typer(no_args_is_help=True, help="List the training recipes, or copy one to change it.")


@app.command("ls")
def ls(as_json: Json = False) -> None:
    """List the recipes."""
    rows = [_facts(name, path) for name, path in shipped().items()]
    emit({"recipes": rows}, as_json, _render)


@app.command("cp")
def cp(
    name: Annotated[str, typer.Argument(help="A recipe of `tritkit recipes ls`.")],
    dest: Annotated[Path, typer.Argument(help="A new file, or a folder.")],
) -> None:
    """Copy a recipe, so that it can be changed."""
    path = _named(name)
    target = dest / path.name if dest.is_dir() else dest
    if target.exists():
        raise UserError(f"{target} exists; choose another name or remove it")
    try:
        with target.open("xb") as file:
            file.write(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}; choose another folder") from error
    talk(f"{target}\nNext: tritkit train {target}")


def find_recipe(given: str) -> Path:
    """A recipe by its path, or by the name of one that ships. UserError with near names if there is none."""
    path = Path(given)
    if path.is_file():
        return path
    if path.suffix == ".toml" and path.name.removesuffix(".toml") not in shipped():
        raise UserError(f"no recipe file {given}; give a .toml file or one of: {', '.join(shipped())}")
    return _named(given.removesuffix(".toml"))


def shipped() -> dict[str, Path]:
    """Name → file of each recipe in the package, or beside the sources in a checkout."""
    places = [Path(str(resources.files("tritkit"))) / "recipes", Path(__file__).resolve().parents[3] / "recipes"]
    for place in places:
        found = {path.stem: path for path in sorted(place.glob("*.toml"))}
        if found:
            return found
    raise TritkitError("no recipes came with this tritkit; reinstall it")


def _named(name: str) -> Path:
    known = shipped()
    if name not in known:
        near = get_close_matches(name, list(known), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}"
        raise UserError(f"there is no recipe {name!r}; {hint}")
    return known[name]


def _facts(name: str, path: Path) -> Facts:
    text = path.read_text(encoding="utf-8")
    about = " ".join(line.removeprefix("#").strip() for line in _leading_comment(text))
    values = tomllib.loads(text)
    method = values.get("method", {}).get("name")
    return {"name": name, "about": about, "method": method, "epochs": values.get("epochs"), "path": str(path)}


def _leading_comment(text: str) -> list[str]:
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line)
    return lines


def _render(facts: Facts, console: Console) -> None:
    rows = [[row["name"], row["about"]] for row in facts["recipes"]]
    console.print(table(["recipe", "about"], rows, left=2))
    console.print("\nNext: tritkit train RECIPE, or tritkit recipes cp RECIPE my.toml to change it first.")
