"""Options: what wins over what, what is refused and how, and that no option is without effect."""

import ast
import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

import synthdetect
from synthdetect.commands.catalogue import COMMANDS
from synthdetect.commands.options import ListOptions, ManifestOptions, PromoteOptions
from synthdetect.config.options import Options, option_name
from synthdetect.images.geometry import GEOMETRIES
from synthdetect.models.architectures import ARCHITECTURES
from synthdetect.runs.options import CvOptions, ExportOptions, PredictOptions, TrainOptions
from synthdetect.runs.recipes import RECIPES
from synthdetect.system.errors import UserError

PACKAGE = Path(synthdetect.__file__).parent
WITH_RECIPE = [c.options for c in COMMANDS.values() if "recipe" in c.options.fields()]


def refusal(given: dict[str, Any], options: type[Options] = TrainOptions) -> str:
    with pytest.raises(UserError) as caught:
        options.resolve(given)
    return str(caught.value)


# --- what wins over what


def test_the_defaults_are_the_papers_common_recipe() -> None:
    options = TrainOptions.resolve({})
    assert options.recipe == "baseline"
    assert (options.arch, options.image_size, options.geometry) == ("resnet18", 224, "resize")
    assert (options.epochs, options.patience, options.batch_size) == (25, 7, 32)
    assert (options.lr, options.weight_decay, options.seed) == (0.0001, 0.01, 42)
    assert (options.hflip, options.jitter, options.blur, options.rotation) == (0.5, 0.1, 0.2, 0.0)
    assert (options.finetune, options.per_category, options.generators) == (0.0, 0, ())


def test_a_recipe_changes_what_it_names_and_nothing_else() -> None:
    options = TrainOptions.resolve({"recipe": "open"}).to_json()
    changed = {k: v for k, v in options.items() if v != TrainOptions.resolve({}).to_json()[k]}
    assert changed == {
        "recipe": "open",
        "arch": "resnet50",
        "geometry": "resize_crop",
        "rotation": 10.0,
        "jitter": 0.2,
        "finetune": 0.2,
    }


def test_the_constrained_recipe_limits_each_category_to_35000_images() -> None:
    options = TrainOptions.resolve({"recipe": "constrained"})
    assert (options.arch, options.per_category) == ("resnet18", 35_000)


def test_a_given_value_wins_over_the_recipe_even_if_it_is_the_default() -> None:
    options = TrainOptions.resolve({"recipe": "open", "arch": "resnet18", "rotation": "0"})
    assert (options.arch, options.rotation) == ("resnet18", 0.0)
    assert (options.geometry, options.jitter) == ("resize_crop", 0.2)


def test_the_text_recipe_counts_as_not_given() -> None:
    given = {"recipe": "open", "arch": "recipe", "rotation": "recipe", "jitter": "0.3"}
    options = TrainOptions.resolve(given)
    assert (options.arch, options.rotation, options.jitter) == ("resnet50", 10.0, 0.3)
    assert TrainOptions.resolve(dict.fromkeys(["arch", "recipe", "epochs"], "recipe")) == (
        TrainOptions.resolve({})
    )


def test_values_may_be_text_as_on_a_command_line() -> None:
    given = {"lr": "1e-3", "epochs": "3", "keep_last": "false", "finetune": "2000"}
    options = TrainOptions.resolve(given)
    assert (options.lr, options.epochs, options.keep_last, options.finetune) == (
        0.001, 3, False, 2000.0
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ()),
        ("glide", ("glide",)),
        ("glide,sd14", ("glide", "sd14")),
        (" glide , sd14 ,", ("glide", "sd14")),
    ],
)
def test_several_names_are_separated_by_commas(text: str, names: tuple[str, ...]) -> None:
    assert TrainOptions.resolve({"generators": text}).generators == names
    assert TrainOptions.resolve({"categories": names}).categories == names


def test_options_cannot_be_changed_after_they_are_made() -> None:
    options = TrainOptions.resolve({})
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.epochs = 1  # type: ignore[misc]


# --- what is refused


def test_an_unknown_name_is_refused_with_the_nearest_one_as_a_hint() -> None:
    assert refusal({"batchsize": 8}) == "unknown option --batchsize. Did you mean --batch-size?"


def test_an_unknown_name_like_no_other_is_refused_without_a_hint() -> None:
    assert refusal({"zzzzzzzz": 8}) == "unknown option --zzzzzzzz."


def test_every_unknown_name_of_a_call_is_named() -> None:
    lines = refusal({"epoch": 1, "lrr": 2}).splitlines()
    assert lines == [
        "unknown option --epoch. Did you mean --epochs?",
        "unknown option --lrr. Did you mean --lr?",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", "many"),
        ("epochs", 0),
        ("epochs", -3),
        ("epochs", "2.5"),
        ("patience", 0),
        ("batch_size", 1),
        ("lr", "fast"),
        ("lr", 0),
        ("lr", -0.1),
        ("lr", "nan"),
        ("lr", "inf"),
        ("lr", "-inf"),
        ("lr", float("nan")),
        ("weight_decay", -1e-9),
        ("weight_decay", "inf"),
        ("seed", -1),
        ("seed", 2**31),
        ("image_size", 15),
        ("image_size", 4097),
        ("hflip", 1.01),
        ("jitter", -0.01),
        ("jitter", "nan"),
        ("blur", 2),
        ("blur_sigma", 0.1),
        ("blur_sigma", 10.5),
        ("rotation", 181),
        ("random_erasing", 1.1),
        ("mixup", -0.1),
        ("cutmix", 101),
        ("loss", "hinge"),
        ("focal_gamma", 0.5),
        ("focal_gamma", 11),
        ("label_smoothing", 1),
        ("optimizer", "adam"),
        ("momentum", 1),
        ("lookahead_steps", 0),
        ("lookahead_alpha", 0),
        ("adaptation_weight", 0),
        ("adversarial", "cw"),
        ("adversarial_epsilon", 0),
        ("adversarial_steps", 0),
        ("adversarial_share", 0),
        ("adversarial_from", 1),
        ("rotation", "inf"),
        ("val_share", 0),
        ("val_share", 1),
        ("test_share", 1.0),
        ("finetune", -1),
        ("finetune", "inf"),
        ("per_category", -2),
        ("max_images", "-1"),
        ("geometry", "stretch"),
        ("arch", "resnet19"),
        ("arch", ""),
        ("recipe", "best"),
        ("threshold", "accuracy"),
        ("calibration", "scaling"),
        ("on_bad_image", "ignore"),
        ("device", "tpu"),
        ("precision", "fp8"),
        ("workers", "-1"),
        ("workers", "257"),
        ("workers", "two"),
        ("workers", "1.5"),
        ("keep_last", "perhaps"),
        ("data", None),
        ("data", 3),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_the_options_name(name: str, value: Any) -> None:
    message = refusal({name: value})
    assert message.startswith(f"{option_name(name)}: ")
    assert message.endswith(f"(got {value!r})")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("patience", 1),
        ("batch_size", 2),
        ("seed", 0),
        ("seed", 2**31 - 1),
        ("image_size", 16),
        ("image_size", 4096),
        ("hflip", 0.0),
        ("hflip", 1.0),
        ("blur_sigma", 10.0),
        ("rotation", 180.0),
        ("focal_gamma", 0.0),
        ("focal_gamma", 1.0),
        ("mixup", 100.0),
        ("momentum", 0.0),
        ("lookahead_alpha", 1.0),
        ("adversarial_share", 1.0),
        ("adversarial_from", 0.0),
        ("weight_decay", 0.0),
        ("workers", "0"),
        ("workers", "256"),
        ("workers", "auto"),
    ],
)
def test_the_limits_themselves_are_accepted(name: str, value: Any) -> None:
    assert getattr(TrainOptions.resolve({name: value}), name) == value


def test_all_errors_of_one_call_are_in_one_message_each_with_its_option() -> None:
    message = refusal({"image_size": 3, "lr": "nan", "arch": "vgg", "recipe": "best", "seed": "x"})
    named = sorted(line.partition(":")[0] for line in message.splitlines())
    assert named == ["--arch", "--image-size", "--lr", "--recipe", "--seed"]


def test_unknown_names_and_bad_values_are_reported_together() -> None:
    message = refusal({"epoch": 3, "lr": "fast"})
    assert "--epoch." in message
    assert "--lr:" in message


def test_an_unknown_architecture_is_answered_with_the_known_ones() -> None:
    message = refusal({"arch": "vgg"})
    assert all(name in message for name in ARCHITECTURES)


def test_missing_required_options_are_named() -> None:
    message = refusal({}, ManifestOptions)
    assert [line.partition(":")[0] for line in message.splitlines()] == ["--folder", "--output"]
    assert "--version" in refusal({"name": "detector"}, PromoteOptions)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"adaptation": "dann"}, "--adaptation dann: give --target"),
        ({"target": "photos"}, "--target photos: give --adaptation"),
    ],
)
def test_options_that_do_not_go_together_are_named(given: dict[str, Any], message: str) -> None:
    assert refusal(given).startswith(message)
    options = TrainOptions.resolve({"adaptation": "coral", "target": "photos"})
    assert (options.adaptation, options.target) == ("coral", "photos")


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        (CvOptions, {"register": "d"}, "--register d: only the final training"),
        (CvOptions, {"folds_from": "f", "folds": "3"}, "--folds: the folds are those"),
        (
            CvOptions,
            {"folds_from": "f", "group_by": "generator", "stratify": "category"},
            "--group-by, --stratify: the folds are those of --folds-from f",
        ),
        (PredictOptions, {"team": "me"}, "--team: only for a --submission"),
        (PredictOptions, {"edition": "2026"}, "--edition: only for"),
        (PredictOptions, {"unreadable_as": "real"}, "--unreadable-as: only for"),
        (ExportOptions, {"val_share": "0.2"}, "--val-share: splits --data"),
    ],
)
def test_options_without_effect_are_refused(
    options: type[Options], given: dict[str, Any], message: str
) -> None:
    assert refusal(given, options).startswith(message)
    ways = {"register": {"refit": True}, "team": {"submission": "open"}, "val_share": {"data": "d"}}
    for name, way in ways.items():
        if name in given:
            options.resolve({**given, **way})
    options.resolve({name: options.fields()[name].default for name in given} | {"output": "o"})


def test_what_to_list_is_one_of_the_tables_there_are() -> None:
    assert "--what" in refusal({"what": "weather"}, ListOptions)


# --- what is recorded


@pytest.mark.parametrize("options", WITH_RECIPE, ids=lambda c: c.__name__)
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_record_of_any_recipe_resolves_to_the_same_options(
    options: type[Options], recipe: str
) -> None:
    given = {"recipe": recipe, "generators": "glide,sd14", "lr": "3e-4", "keep_last": "no"}
    made = options.resolve(given)
    record = json.loads(json.dumps(made.to_json()))
    assert options.resolve(record) == made
    assert options.resolve({k: str(v) for k, v in record.items()}) == made


@pytest.mark.parametrize("options", WITH_RECIPE, ids=lambda c: c.__name__)
def test_the_flat_record_has_every_field_once_under_its_section(options: type[Options]) -> None:
    made = options.resolve({"generators": "glide,sd14"})
    flat = made.to_flat()
    assert sorted(name.partition(".")[2] for name in flat) == sorted(options.fields())
    assert {k.partition(".")[2]: v for k, v in flat.items()} == made.to_json()


def test_the_flat_record_uses_these_names() -> None:
    flat = TrainOptions.resolve({"generators": "glide,sd14"}).to_flat()
    expected = {
        "data.data": "sample",
        "data.generators": "glide,sd14",
        "image.image_size": 224,
        "augment.hflip": 0.5,
        "model.arch": "resnet18",
        "optim.lr": 0.0001,
        "decision.threshold": "balanced_accuracy",
        "device.workers": "auto",
        "run.recipe": "baseline",
    }
    assert {name: flat[name] for name in expected} == expected


def test_no_recorded_name_is_a_name_of_the_command_line() -> None:
    """`mlflow run` records `-P` names with their text; the same name twice would be refused."""
    for options in WITH_RECIPE:
        assert not set(options.resolve({}).to_flat()) & set(options.fields())


# --- nothing is without effect, nothing is said twice


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_uses_known_fields_and_valid_values(recipe: str) -> None:
    assert set(RECIPES[recipe]) <= set(TrainOptions.fields())
    options = TrainOptions.resolve(RECIPES[recipe])
    assert {name: getattr(options, name) for name in RECIPES[recipe]} == RECIPES[recipe]


def test_every_option_has_a_description_and_a_section() -> None:
    for command in COMMANDS.values():
        fields = command.options.fields()
        assert set(command.options.sections()) == set(fields)
        assert all(info.description for info in fields.values())


def test_the_geometries_one_can_ask_for_are_those_there_are() -> None:
    assert get_args(TrainOptions.fields()["geometry"].annotation) == tuple(GEOMETRIES)


@functools.cache
def _parsed() -> dict[Path, ast.Module]:
    return {file: ast.parse(file.read_text()) for file in PACKAGE.rglob("*.py")}


def _option_readers(trees: dict[Path, ast.Module]) -> set[str]:
    """Names of classes through which code reads options: theirs, and protocols of parts of them."""
    classes = {"Options", "Self"}
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
                if "Protocol" in bases or node.name.endswith("Options"):
                    classes.add(node.name)
    return classes


def _attributes_read_of(tree: ast.Module, classes: set[str]) -> set[str]:
    """Attributes read of parameters whose annotation is one of the classes."""
    parameters = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation is not None:
            named = {n.id for n in ast.walk(node.annotation) if isinstance(n, ast.Name)}
            if named & classes:
                parameters.add(node.arg)
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in parameters
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_read_by_some_code(command: str) -> None:
    """A flag that nothing reads looks as if it worked."""
    trees = {file: tree for file, tree in _parsed().items() if file.name != "config.py"}
    classes = _option_readers(_parsed())
    read = set().union(*(_attributes_read_of(tree, classes) for tree in trees.values()))
    assert set(COMMANDS[command].options.fields()) - read == set()


HEAVY = ("torch", "torchvision", "mlflow", "pandas", "numpy", "scipy", "sklearn", "matplotlib")


@pytest.mark.parametrize(
    "arguments",
    [[], ["--help"], ["train", "--help"], ["--version"], ["train", "--epochs=none", "--oops=1"]],
    ids=" ".join,
)
def test_help_and_refusals_import_nothing_heavy(arguments: list[str]) -> None:
    program = f"""
import runpy, sys
sys.argv = ["synthdetect", *{arguments!r}]
try:
    runpy.run_module("synthdetect", run_name="__main__")
except SystemExit as end:
    status = end.code
print("heavy:", [name for name in {HEAVY!r} if name in sys.modules], "status:", status)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    status = 0 if {"--help", "--version"} & set(arguments) else 2
    assert done.stdout.splitlines()[-1] == f"heavy: [] status: {status}", done.stderr
