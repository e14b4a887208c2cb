"""`Recipe`: everything that decides a training run. A TOML file holds only what differs from the defaults here."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tritkit.errors import UserError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
IndexBits = Annotated[int, Field(ge=2, le=8)]
Moment = Annotated[float, Field(ge=0, lt=1)]
Three = tuple[float, float, float]


_FIXED_SIZE = ("alexnet-bn", "vgg16-bn")  # their first linear layer fits images of 224 pixels


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Cosine(_Table):
    """Up from 0 in a straight line, then down to 0 along half a cosine, changed every step."""

    name: Literal["cosine"] = "cosine"
    warmup_epochs: NotNegative = 1.0
    """Epochs of the way up; may be a fraction."""


class Steps(_Table):
    """The peak rate, multiplied by `factor` at each of `at`."""

    name: Literal["steps"]
    at: tuple[AtLeastOne, ...]
    """Epochs after which the rate falls, ascending."""
    factor: Fraction = 0.1
    """What it is multiplied by."""
    warmup_epochs: NotNegative = 0.0
    """Epochs of a straight way up from 0; may be a fraction."""


class Method(BaseModel):
    """A method by name; further keys are the fields of its dataclass, such as `threshold = 0.05`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The keys beside `name`."""
        return dict(self.model_extra or {})


class Distill(_Table):
    """Hinton et al. 2015: loss = (1 − weight) · cross-entropy + weight · T² · KL(teacher ‖ student), both at T."""

    model: str | tuple[str, ...]
    """The teacher's model, such as "cifar-resnet56"; a list makes an ensemble, whose logits are averaged."""
    weights: str | tuple[str, ...]
    """Its float weights; what `init` takes. As many as there are models."""
    temperature: Positive = 4.0
    """T, which both sets of logits are divided by."""
    weight: Fraction = 0.7
    """Share of the teacher's term in the loss."""
    bits: Literal[8, 32] = 32
    """32: the teacher runs in floats. 8: as an integer network in `Session`, faster on a CPU."""

    @property
    def teachers(self) -> list[tuple[str, str]]:
        """Model and weights of each."""
        models = (self.model,) if isinstance(self.model, str) else self.model
        weights = (self.weights,) if isinstance(self.weights, str) else self.weights
        if not models or len(models) != len(weights):
            raise ValueError(f"{len(models)} models and {len(weights)} weights; each teacher needs one of both")
        return list(zip(models, weights, strict=True))

    @model_validator(mode="after")
    def _has_teachers(self) -> Distill:
        _ = self.teachers
        return self


class Density(_Table):
    """A penalty on the share of weights that are not zero: weight · max(0, density − target), see `train.density`."""

    target: Annotated[float, Field(gt=0, lt=1)]
    """Mean share of non-zero weights over the ternary layers, down to which the penalty pulls."""
    weight: Positive = 1.0
    """Loss for a density that is 1 too high; the loss of a batch is about 1 without a teacher."""


class Activations(_Table):
    """8-bit activations simulated during training."""

    from_epoch: AtLeastOne = 1
    """The first epoch that has them; ranges are calibrated at its start."""
    calibration_images: AtLeastOne = 1024
    """Training images, not augmented, that set the ranges at the start."""
    freeze_epoch: AtLeastOne | None = None
    """The first epoch in which the ranges stay fixed; none lets them follow to the end."""
    int8_weights: bool = False
    """Simulate, from the same epoch, the int8 weights that `export` gives to layers that are not ternary. Each step
    looks for their units on the CPU: 0.6 ms for a CIFAR ResNet, 0.2 s for a classifier of two million weights."""


class Adam(_Table):
    """Kingma & Ba 2014 in place of SGD; the weight decay is an L2 term of the gradient."""

    betas: tuple[Moment, Moment] = (0.9, 0.999)
    """Of the averages of the gradient and of its square."""
    eps: Positive = 1e-8
    """Added to the root of the second."""


class DeepCompression(_Table):
    """Han et al. 2015: prune at the start, train what is left, share weights, train their centroids to the end."""

    sparsity: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of the weights that each layer loses at the start; this or `quality`."""
    quality: Positive | None = None
    """Weights up to this times the standard deviation of their layer are lost at the start; this or `sparsity`."""
    share_epoch: AtLeastOne
    """The first epoch in which weights are shared; until then pruned float weights train."""
    bits_conv: IndexBits = 8
    """Bits of an index in convolutions, 2..8: 2^bits values, zero among them."""
    bits_fc: IndexBits = 5
    """Bits of an index in linear layers, 2..8."""
    centroid_lr: Positive = 1e-3
    """Peak learning rate of the centroids, whose gradients are sums over their weights; it follows the schedule."""


class DoReFa(_Table):
    """Zhou et al. 2016: low-bit weights, activations and gradients in every layer but those in `exclude`."""

    weight_bits: Annotated[int, Field(ge=1, le=16)] = 1
    """1 is binary and the only one that `export` takes; 1..16."""
    activation_bits: int = 32
    """Of the inputs of the low-bit layers: 1..16, or 32 for float. Below 32 the network cannot be exported."""
    gradient_bits: int = 32
    """Of the gradients of the low-bit layers' outputs: 1..16, or 32 for float."""


class Recipe(_Table):
    """One training run. Epochs are counted from 1; rates are a step; errors are fractions in 0..1."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9._-]+$")
    """What the run is called in its record; letters, digits, '.', '_' and '-'."""
    model: str = "cifar-resnet20"
    """A network of `tritkit.models.build`."""
    dataset: Literal["cifar10", "imagenet"] = "cifar10"
    """"imagenet" is any folder of pictures in ImageNet's layout, a folder a class."""
    classes: AtLeastOne | None = None
    """Outputs of the network, one a class; none: as many as its data set has, 10 or 1,000."""
    image_size: Annotated[int, Field(ge=16, le=1024)] | None = None
    """Height and width of the crops of ImageNet, in pixels; none is 224. The short side is 8/7 of it before."""
    crop: Literal["random", "resized", "centre"] = "random"
    """How training images are cut: "random" anywhere (for CIFAR-10 from 4 more pixels on each side) and mirrored;
    "resized" a random part of a random size, mirrored; "centre" the middle, as in evaluation. CIFAR-10 has "random"."""
    cutmix: Fraction = 0.0
    """Probability that a batch is mixed by CutMix (Yun et al. 2019): each image gets a rectangle of another one, and
    the cross-entropy their classes by area. A teacher sees the mixed images; the training error is of them too. Each
    of several processes mixes its own share of a batch."""
    init: str | None = None
    """Float weights to start from, a safetensors file or torchvision's .pth, or the URL of one of them that ends in
    "#sha256=" and at least 8 digits of its checksum; none starts from random ones. The final.safetensors of a run with
    the same model and method is trained on from its latent weights and scales; another method begins with the codes
    that it found."""
    method: Method | None = None
    """How weights are made ternary; none trains a float network."""
    post_training_images: Count = 0
    """Training images, not augmented, from which post-training chooses the codes and scales that `method` begins with;
    0: the method makes its own of the float weights."""
    exclude: tuple[str, ...] = ("conv1", "linear")
    """Modules that `method`, `dorefa` or `deep_compression` leaves float."""
    dorefa: DoReFa | None = None
    """Low-bit weights, activations and gradients in place of a method; none: no."""
    deep_compression: DeepCompression | None = None
    """Pruning and weight sharing in place of a method; none: no."""
    epochs: Count = 160
    """Passes over the training images. 0 trains nothing: weights are projected, then `bn_images` and `activations`."""
    batch_size: AtLeastOne = 128
    """Images a step. The last, smaller batch of an epoch is dropped."""
    lr: Positive = 0.1
    """The peak learning rate."""
    schedule: Annotated[Cosine | Steps, Field(discriminator="name")] = Cosine()
    """How the rate changes."""
    adam: Adam | None = None
    """Adam in place of SGD; none is SGD."""
    momentum: Moment = 0.9
    """SGD's momentum."""
    nesterov: bool = True
    """Nesterov's form of it; needs momentum above 0."""
    weight_decay: NotNegative = 5e-4
    """L2 on weights of convolutions and linear layers (latents included); none on batch norm and biases."""
    scale_lr: Positive | None = None
    """Peak learning rate of the ternary scales; none is `lr`."""
    scale_weight_decay: NotNegative = 0.0
    """L2 on the ternary scales."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability spread evenly over all classes in the cross-entropy."""
    distill: Distill | None = None
    """A teacher to learn from; none is plain cross-entropy."""
    density: Density | None = None
    """A penalty that makes a method's layers sparser; none: the method alone decides."""
    activations: Activations | None = None
    """8-bit activations in the loop; none keeps them float."""
    freeze_codes_epoch: AtLeastOne | None = None
    """The first epoch in which the ternary codes stay fixed and only the rest learns; none: never."""
    snap_scales: bool = False
    """At the end, put Wp : Wn on the integer grid of the deployed network."""
    bn_images: Count = 0
    """Training images, augmented as in training, that set batch norm's statistics at the end; 0 keeps the averages."""
    mean: Three = (0.4914, 0.4822, 0.4465)
    """Subtracted from each channel, in units of full scale."""
    std: Three = (0.2470, 0.2435, 0.2616)
    """Each channel is divided by it, in units of full scale."""
    seed: Count = 0
    """Of weights, order and augmentation."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Of the convolutions and products in training (autocast). Evaluation is float32. bfloat16 is faster on
    accelerators and on CPUs with full-width products of it (AMX, Zen 5), slower on a Xeon that has AVX512-BF16 alone:
    `benchmarks/training_cost.py` tells."""
    held_out: Count = 0
    """Training images kept aside to choose by; 0 trains on all."""
    checkpoint_every: Count = 200
    """Steps between checkpoints; one is written at the end of each epoch in any case. 0: only there."""


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in the TOML file `path`, changed by `overrides` of the form "key=value" (dots reach into tables).

    A value is read as TOML, or as text where it is none. The file's name is the run's name unless it gives one. Raises
    UserError that names the file, the key, what was given and what is allowed.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read the recipe {path}: {error.strerror}; give the path of a .toml file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not TOML: {error}") from error
    for override in overrides:
        _override(values, override)
    return make_recipe({"name": path.stem, **values}, str(path))


def make_recipe(values: dict[str, Any], source: str = "recipe") -> Recipe:
    """A recipe from plain values, with the same checks as `load_recipe`; `source` is named in errors."""
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{source}: " + "; ".join(_sentence(e) for e in error.errors()[:3])) from error
    problem = _contradiction(recipe)
    if problem:
        raise UserError(f"{source}: {problem}")
    return recipe


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UserError(f"cannot read {override!r}; write key=value, for example lr=0.05 or method.threshold=0.1")
    for part in parts[:-1]:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise UserError(f"cannot set {key}: {part} is no table")
    values[parts[-1]] = _value(text.strip())


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return None if text.lower() == "none" else text


def _sentence(error: Any) -> str:
    place = [str(part) for part in error["loc"]]
    key = ".".join(place)
    if error["type"] == "extra_forbidden":
        return f"unknown key {key!r}; allowed: {', '.join(_fields(place[:-1]))}"
    if error["type"] == "missing":
        return f"{key} is missing"
    text = error["msg"].removeprefix("Value error, ")
    hint = text[0].lower() + text[1:]
    return f"{key} is {error['input']!r}; {hint}"


def _fields(place: list[str]) -> list[str]:
    """The keys that the table at `place` takes."""
    table = _TABLES.get(place[-1], Recipe) if place else Recipe
    return sorted(table.model_fields)


_TABLES: dict[str, type[BaseModel]] = {
    "distill": Distill,
    "density": Density,
    "activations": Activations,
    "adam": Adam,
    "dorefa": DoReFa,
    "deep_compression": DeepCompression,
    "cosine": Cosine,
    "steps": Steps,
}


def _contradiction(recipe: Recipe) -> str | None:
    """What single fields cannot tell; None if all is well."""
    if recipe.nesterov and recipe.momentum == 0:
        return "nesterov needs momentum above 0; set nesterov = false"
    if recipe.epochs and recipe.schedule.warmup_epochs >= recipe.epochs:
        return f"schedule.warmup_epochs is {recipe.schedule.warmup_epochs:g}; it must be below epochs = {recipe.epochs}"
    if isinstance(recipe.schedule, Steps) and list(recipe.schedule.at) != sorted(set(recipe.schedule.at)):
        return f"schedule.at is {list(recipe.schedule.at)}; epochs must ascend"
    if min(recipe.std) <= 0:
        return f"std is {recipe.std}; each must be above 0"
    ternary = recipe.method is not None or recipe.dorefa is not None
    if not ternary and (recipe.freeze_codes_epoch or recipe.snap_scales or recipe.scale_lr):
        return "freeze_codes_epoch, snap_scales and scale_lr are about ternary weights; set method too"
    if recipe.epochs and recipe.activations and recipe.activations.from_epoch > recipe.epochs:
        return f"activations.from_epoch is {recipe.activations.from_epoch}; the run has {recipe.epochs} epochs"
    if recipe.post_training_images and (recipe.method is None or recipe.init is None):
        return "post_training_images chooses the codes that a method begins with: set method and init too"
    if recipe.density and recipe.method is None:
        return "density draws the weights of a method to zero; set method too"
    checks = (_dataset_contradiction, _adam_contradiction, _low_bit_contradiction, _deep_contradiction)
    return next((problem for problem in (check(recipe) for check in checks) if problem), None)


def _dataset_contradiction(recipe: Recipe) -> str | None:
    if recipe.dataset == "cifar10" and (recipe.image_size or recipe.crop != "random"):
        return 'image_size and crop are about folders of pictures; set dataset = "imagenet" too'
    if recipe.model in _FIXED_SIZE and recipe.image_size not in (None, 224):
        return f"image_size is {recipe.image_size}; {recipe.model} takes images of 224 pixels only"
    return None


def _adam_contradiction(recipe: Recipe) -> str | None:
    defaults = Recipe.model_fields
    if recipe.adam and any(getattr(recipe, key) != defaults[key].default for key in ("momentum", "nesterov")):
        return "momentum and nesterov are SGD's; leave them out, or leave out adam"
    return None


def _low_bit_contradiction(recipe: Recipe) -> str | None:
    settings = recipe.dorefa
    if settings is None:
        return None
    if recipe.method is not None or recipe.deep_compression is not None:
        return "dorefa, method and deep_compression are ways to make weights small; set one of them"
    for key in ("activation_bits", "gradient_bits"):
        bits = getattr(settings, key)
        if bits not in (*range(1, 17), 32):
            return f"dorefa.{key} is {bits}; it must be 1 to 16, or 32 for float"
    if recipe.activations and settings.activation_bits != 32:
        return "activations are the 8 bits of the exported network; with them dorefa.activation_bits must be 32"
    return None


def _deep_contradiction(recipe: Recipe) -> str | None:
    settings = recipe.deep_compression
    if settings is None:
        return None
    if recipe.method is not None:
        return "method and deep_compression are two ways to make weights small; set one of them"
    if (settings.sparsity is None) == (settings.quality is None):
        return "deep_compression needs either sparsity or quality, such as deep_compression.sparsity=0.8"
    if settings.share_epoch > recipe.epochs:
        return f"deep_compression.share_epoch is {settings.share_epoch}; the run has {recipe.epochs} epochs"
    return None
