"""A run that begins with post-training's codes, and one of them that is killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_resume import _killed
from tiny import recipe, run

from tritkit import models
from tritkit.errors import UserError
from tritkit.train.network import build_network
from tritkit.train.record import read_record


@pytest.fixture
def post(tmp_path: Path) -> dict[str, Any]:
    torch.manual_seed(3)
    save_file(models.build("cifar-resnet8").state_dict(), tmp_path / "float.safetensors")
    method = {"name": "lsq", "per": "channel"}
    return {"init": str(tmp_path / "float.safetensors"), "method": method, "post_training_images": 64}


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, post: dict[str, Any]) -> None:
    run(tmp_path / "whole", post)
    _killed(tmp_path / "cut", 2, post)
    run(tmp_path / "cut", post)
    whole, cut = (load_file(tmp_path / name / "final.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_the_start_decides_the_end(tmp_path: Path, post: dict[str, Any]) -> None:
    for name, images in (("post", 64), ("plain", 0)):
        run(tmp_path / name, post | {"post_training_images": images, "epochs": 2})
    first = [read_record(tmp_path / name / "record.jsonl")[1]["loss"] for name in ("post", "plain")]
    assert first[0] != first[1]


def test_a_recipe_must_say_what_begins(post: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="set method and init too"):
        recipe(post_training_images=64)
    with pytest.raises(UserError, match="needs the training images"):
        build_network(recipe(**post))
