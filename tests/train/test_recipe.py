"""Recipes: what a file may say, and the sentence it gets when it says something else."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tritkit import methods
from tritkit.errors import UserError
from tritkit.train import Recipe, load_recipe, make_recipe
from tritkit.train.recipe import Cosine, Steps
from tritkit.train.schedule import rate_factor

_RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def _write(folder: Path, text: str) -> Path:
    path = folder / "r.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(_RECIPES.glob("*.toml")), ids=lambda p: p.stem)
def test_ours_load(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert make_recipe(recipe.model_dump(mode="json")) == recipe  # as the record and the weights keep it
    if recipe.method is not None:
        methods.get(recipe.method.name, **recipe.method.parameters)


def test_only_what_differs(tmp_path: Path) -> None:
    path = _write(
        tmp_path, 'epochs = 9\n[method]\nname = "ttq"\nthreshold = 0.1\n[schedule]\nname = "steps"\nat = [4, 8]'
    )
    recipe = load_recipe(path)
    assert (recipe.epochs, recipe.lr, recipe.name) == (9, Recipe().lr, "r")
    assert recipe.method is not None
    assert (recipe.method.name, recipe.method.parameters) == ("ttq", {"threshold": 0.1})
    assert recipe.schedule == Steps(name="steps", at=(4, 8))


def test_overrides(tmp_path: Path) -> None:
    path = _write(tmp_path, 'epochs = 9\n[method]\nname = "ttq"')
    recipe = load_recipe(
        path, ["epochs=3", "method.threshold=0.2", "model=cifar-resnet8", "exclude=['linear']", "init=none"]
    )
    assert (recipe.epochs, recipe.model, recipe.exclude, recipe.init) == (3, "cifar-resnet8", ("linear",), None)
    assert recipe.method is not None
    assert recipe.method.parameters == {"threshold": 0.2}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("epoch = 3", "r.toml: unknown key 'epoch'; allowed: activations, adam, batch_size"),
        ("epochs = -1", "epochs is -1; input should be greater than or equal to 0"),
        ("lr = -0.1", "lr is -0.1; input should be greater than 0"),
        ("lr = nan", "lr is nan"),
        ("precision = 'float16'", "precision is 'float16'; input should be 'bfloat16' or 'float32'"),
        ("[distill]\nmodel = 'cifar-resnet20'", "distill.weights is missing"),
        (
            "[distill]\nmodel='a'\nweights='b'\nheat=4",
            "unknown key 'distill.heat'; allowed: bits, model, temperature, weight, weights",
        ),
        ("[schedule]\nname = 'line'", "schedule is .* 'cosine', 'steps'"),
        ("[schedule]\nname = 'cosine'\nat = [3]", "unknown key 'schedule.cosine.at'; allowed: name, warmup_epochs"),
        ("[schedule]\nname = 'steps'\nat = [8, 4]", "epochs must ascend"),
        ("epochs = 1", "warmup_epochs is 1; it must be below epochs = 1"),
        ("momentum = 0.0", "nesterov needs momentum"),
        ("snap_scales = true", "about ternary weights; set method"),
        ("std = [0.2, 0.2, 0]", "each must be above 0"),
        ("epochs = 4\n[activations]\nfrom_epoch = 5", "activations.from_epoch is 5; the run has 4 epochs"),
        ("name = '../x'", "name is '../x'"),
        ("epochs = ", "is not TOML"),
    ],
)
def test_mistakes_get_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load_recipe(_write(tmp_path, text))


def test_bad_overrides(tmp_path: Path) -> None:
    path = _write(tmp_path, "epochs = 3")
    for override, sentence in [("epochs", "write key=value"), ("epochs.x=1", "no table"), ("=1", "write key=value")]:
        with pytest.raises(UserError, match=sentence):
            load_recipe(path, [override])
    with pytest.raises(UserError, match="cannot read the recipe"):
        load_recipe(tmp_path / "absent.toml")


def test_cosine() -> None:
    schedule = Cosine(warmup_epochs=2)
    factors = [rate_factor(schedule, step, steps_per_epoch=4, epochs=12) for step in range(48)]
    assert factors[:8] == [k / 8 for k in range(1, 9)]
    assert factors[8] == 1.0
    assert factors[28] == pytest.approx(0.5)  # half way between step 8 and step 48
    assert factors[47] == pytest.approx(0.5 * (1 + math.cos(math.pi * 39 / 40)))
    assert factors[8:] == sorted(factors[8:], reverse=True)


def test_steps() -> None:
    schedule = Steps(name="steps", at=(2, 3), factor=0.1)
    factors = [rate_factor(schedule, step, steps_per_epoch=2, epochs=4) for step in range(8)]
    assert factors == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])
