"""Tests of the options: precedence, validation, the record, and what is known of each option."""

import dataclasses
import importlib
import json
import subprocess
import sys
from typing import Any

import pytest

from sweeps.options import SweepOptions
from sweeps.strategies import STRATEGIES
from synthdetect.commands.catalogue import COMMANDS
from synthdetect.commands.options import LISTS, ListOptions, ManifestOptions
from synthdetect.config.options import Affects, Options, affects, option_name
from synthdetect.config.registry import Entry
from synthdetect.detectors.engines.options import ENGINES
from synthdetect.evaluation.options import CALIBRATIONS, ENSEMBLES, THRESHOLD_RULES
from synthdetect.images.options import GEOMETRIES, VIEWS
from synthdetect.models.architectures import ARCHITECTURES
from synthdetect.models.spec import FRONT_ENDS
from synthdetect.runs.options import (
    CvOptions,
    EvaluateOptions,
    ExportOptions,
    PredictOptions,
    RegimesOptions,
    ResplitOptions,
    TrainOptions,
)
from synthdetect.runs.recipes import FACTORS, RECIPES
from synthdetect.system.errors import UserError
from synthdetect.training.options import ADAPTATIONS, ATTACKS, LOSSES, OPTIMIZERS, SCHEDULES
from tests.conftest import ROOT

ALL: dict[str, type[Options]] = {
    **{name: command.options for name, command in COMMANDS.items()},
    "sweep": SweepOptions,
}
"""The options of every command by its name."""

WITH_RECIPE = [options for options in ALL.values() if "recipe" in options.fields()]


def refusal(given: dict[str, Any], options: type[Options] = TrainOptions) -> str:
    with pytest.raises(UserError) as caught:
        options.resolve(given)
    return str(caught.value)


def required(options: type[Options]) -> dict[str, str]:
    """Values of the options that must be given."""
    known = {"what": "recipes", "shell": "bash"}
    return {name: known.get(name, "x") for name, f in options.fields().items() if f.is_required()}


# --- precedence


def test_the_defaults_are_the_papers_common_recipe() -> None:
    options = TrainOptions.resolve({})
    optim, augment, data = options.optim, options.augment, options.data
    assert (options.recipe, options.model.arch) == ("baseline", "resnet18")
    assert (options.image.image_size, options.image.geometry) == (224, "resize")
    assert (optim.epochs, optim.patience, optim.batch_size) == (25, 7, 32)
    assert (optim.lr, optim.weight_decay, optim.seed) == (0.0001, 0.01, 42)
    assert (augment.hflip, augment.jitter, augment.blur, augment.rotation) == (0.5, 0.1, 0.2, 0.0)
    assert (data.finetune, data.per_category, data.generators) == (0.0, 0, ())


def test_what_is_new_in_a_training_is_off_by_default() -> None:
    options = TrainOptions.resolve({})
    optim = options.optim
    assert (options.model.front_end, optim.schedule, optim.warmup_epochs) == ("rgb", "cosine", 0)
    assert (optim.decay_norms, optim.clip_norm, optim.accumulate) == (True, 0.0, 1)
    assert optim.average == "none"
    launder = options.launder
    assert (launder.resample_real, launder.degrade, launder.recompress) == (0, 0, 0)
    assert options.augment.crop == 0


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
    assert (options.model.arch, options.data.per_category) == ("resnet18", 35_000)


def test_a_given_value_wins_over_the_recipe_even_if_it_is_the_default() -> None:
    options = TrainOptions.resolve({"recipe": "open", "arch": "resnet18", "rotation": "0"})
    assert (options.model.arch, options.augment.rotation) == ("resnet18", 0.0)
    assert (options.image.geometry, options.augment.jitter) == ("resize_crop", 0.2)


def test_the_text_recipe_counts_as_not_given() -> None:
    given = {"recipe": "open", "arch": "recipe", "rotation": "recipe", "jitter": "0.3"}
    options = TrainOptions.resolve(given)
    assert (options.model.arch, options.augment.rotation) == ("resnet50", 10.0)
    assert options.augment.jitter == 0.3
    assert TrainOptions.resolve(dict.fromkeys(["arch", "recipe", "epochs"], "recipe")) == (
        TrainOptions.resolve({})
    )


def test_values_may_be_text_as_on_a_command_line() -> None:
    given = {"lr": "1e-3", "epochs": "3", "keep_last": "false", "finetune": "2000"}
    options = TrainOptions.resolve(given)
    assert (options.optim.lr, options.optim.epochs) == (0.001, 3)
    assert (options.run.keep_last, options.data.finetune) == (False, 2000.0)


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
    assert TrainOptions.resolve({"generators": text}).data.generators == names
    assert TrainOptions.resolve({"categories": names}).data.categories == names


def test_options_cannot_be_changed_after_they_are_made() -> None:
    options = TrainOptions.resolve({})
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.recipe = "open"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.optim.epochs = 1  # type: ignore[misc]


# --- validation


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
        ("front_end", "hsv"),
        ("schedule", "linear"),
        ("warmup_epochs", -1),
        ("clip_norm", -0.1),
        ("clip_norm", "inf"),
        ("accumulate", 0),
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
        ("threshold_rule", "accuracy"),
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
        ("warmup_epochs", 24),
        ("accumulate", 1),
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
    assert TrainOptions.resolve({name: value}).value(name) == value


def test_all_errors_of_one_call_are_in_one_message_each_with_its_option() -> None:
    message = refusal({"image_size": 3, "lr": "nan", "arch": "vgg", "recipe": "best", "seed": "x"})
    named = sorted(line.partition(":")[0] for line in message.splitlines())
    assert named == ["--arch", "--image-size", "--lr", "--recipe", "--seed"]


def test_errors_of_all_sections_are_in_one_message() -> None:
    """An option of the command itself, options of three sections, and a section as a whole."""
    given = {
        "recipe": "best", "lr": "fast", "keep_last": "perhaps", "image_size": 3,
        "adaptation": "dann",
    }  # fmt: skip
    lines = refusal(given).splitlines()
    assert sorted(line.split()[0] for line in lines) == [
        "--adaptation", "--image-size:", "--keep-last:", "--lr:", "--recipe:"
    ]  # fmt: skip


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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"adaptation": "dann"}, "--adaptation dann: give --target"),
        ({"target": "photos"}, "--target photos: give --adaptation or --semi-supervised"),
        ({"semi_supervised": "fixmatch"}, "--semi-supervised fixmatch: give --target"),
        (
            {"semi_supervised": "fixmatch", "target": "photos", "adaptation": "dann"},
            "--semi-supervised fixmatch and --adaptation dann both use",
        ),
        (
            {"semi_supervised": "mean_teacher", "target": "photos", "average": "swa"},
            "--average swa: mean_teacher has one teacher",
        ),
        (
            {"semi_supervised": "fixmatch", "target": "photos", "average": "ema"},
            "--average ema: fixmatch has one teacher",
        ),
        (
            {
                "probe": "knn",
                **dict.fromkeys(("hflip", "jitter", "blur"), "0"),
                "precision": "fp32",
            },
            "--epochs 25: cannot act under --probe knn, which learns nothing by steps",
        ),
        (
            {"semi_supervised": "mean_teacher", "target": "photos", "optimizer": "ranger"},
            "--optimizer ranger: it averages weights",
        ),
        (
            {"semi_supervised": "fixmatch", "target": "photos", "label_smoothing": 0.1},
            "--pseudo-label-confidence 0.95: with --label-smoothing 0.1",
        ),
        (
            {"compile": True, "adaptation": "coral", "target": "photos"},
            "--compile true: the steps of --adaptation coral are not compiled",
        ),
        ({"compile": True, "recipe": "probe"}, "--compile True: cannot act under --probe linear"),
        ({"warmup_epochs": 5, "epochs": 5}, "--warmup-epochs 5: "),
        ({"average": "ema", "optimizer": "lookahead"}, "--average ema: lookahead averages"),
        ({"crop": 15}, "--crop 15: give 16 to 224"),
        ({"crop": 65, "image_size": 64}, "--crop 65: give 16 to 64"),
        ({"crop": 64, "arch": "vit_b_16"}, "--crop 64: vit_b_16 sees"),
    ],
)
def test_options_that_do_not_go_together_are_named(given: dict[str, Any], message: str) -> None:
    found = refusal(given)
    assert found.startswith(message)
    assert "(got " not in found  # the message stands alone, without the values of the section
    assert len(found.splitlines()) == 1
    options = TrainOptions.resolve({"adaptation": "coral", "target": "photos"})
    assert (options.adaptation.adaptation, options.adaptation.target) == ("coral", "photos")


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        (CvOptions, {"register": "d"}, "--register d: only the refit"),
        (CvOptions, {"folds_from": "f", "folds": "3"}, "--folds: the folds are those"),
        (
            CvOptions,
            {"folds_from": "f", "group_by": "generator", "stratify": "category"},
            "--group-by, --stratify: the folds are those of --folds-from f",
        ),
        (PredictOptions, {"team": "me"}, "--team: only used with --submission"),
        (PredictOptions, {"edition": "2026"}, "--edition: only used with"),
        (PredictOptions, {"unreadable_as": "real"}, "--unreadable-as: only used with"),
        (ExportOptions, {"val_share": "0.2"}, "--val-share: splits --data"),
        (RegimesOptions, {"archs": "resnet18"}, "--archs: only used with --factorial true"),
        (RegimesOptions, {"factors": "data"}, "--factors: only used with --factorial true"),
        (
            RegimesOptions,
            {"factorial": True, "finetune": 0.1, "refit": False},
            "--finetune, --refit: not used with --factorial true",
        ),
        (
            RegimesOptions,
            {"factorial": True, "factors": "geometry", "narrow": "a", "narrow_categories": "b"},
            "--narrow, --narrow-categories: only used if data are among --factors",
        ),
        (
            RegimesOptions,
            {"factorial": True, "factors": "data", "archs": "resnet18,resnet50"},
            "--archs: give one, or add architecture",
        ),
        (
            RegimesOptions,
            {"factorial": True, "factors": "architecture", "archs": "resnet18"},
            "--factors: nothing is crossed",
        ),
    ],
)
def test_options_without_effect_are_refused(
    options: type[Options], given: dict[str, Any], message: str
) -> None:
    assert refusal(given, options).startswith(message)
    ways: dict[str, dict[str, Any]] = {
        "register": {"refit": True},
        "team": {"submission": "open"},
        "val_share": {"data": "d"},
        "finetune": {"factorial": False},
        "narrow": {"factors": "geometry,data"},
    }
    for name, way in ways.items():
        if name in given:
            options.resolve({**given, **way})
    options.resolve({name: options.fields()[name].default for name in given} | {"output": "o"})


def test_what_to_list_is_one_of_the_tables_there_are() -> None:
    assert "--what" in refusal({"what": "weather"}, ListOptions)


# --- reading and changing options


def numbers_and_switches(options: type[Options]) -> dict[str, Any]:
    """Another valid value of every option that is a number or a switch."""
    values = {}
    for name, field in options.fields().items():
        default = field.default
        if not isinstance(default, (bool, int, float)):
            continue
        others = (
            [not default]
            if isinstance(default, bool)
            else [default + 1, default + 2, default / 2, 0.25, 0.75, default + 100]
        )
        for value in (other for other in others if other != default):
            try:
                options.resolve({**required(options), name: value})
            except UserError:
                continue
            values[name] = value
            break
    return values


@pytest.mark.parametrize("command", ALL)
def test_an_option_is_given_replaced_recorded_and_read_by_its_name(command: str) -> None:
    options = ALL[command]
    given = required(options)
    default = options.resolve(given)
    values = numbers_and_switches(options)
    for name, value in values.items():
        made = options.resolve({**given, name: value})
        assert made.value(name) == value
        assert made != default
        assert default.replace(**{name: value}) == made
        assert made.replace(**{name: default.value(name)}) == default
        assert made.changed(name) == option_name(name)
        assert default.changed(name) == ""
        others = {k: v for k, v in made.to_json().items() if k != name}
        assert others == {k: v for k, v in default.to_json().items() if k != name}
    unfit = {
        name
        for name, field in options.fields().items()
        if isinstance(field.default, (bool, int, float)) and name not in values
    }
    expected = set()  # what cannot be given alone
    if issubclass(options, ResplitOptions):
        expected = {"finetune"}
    if options is CvOptions:
        expected |= {"processes"}
    if options is ExportOptions:
        expected = {"val_share", "test_share"}
    assert unfit == expected


def test_replacing_changes_several_sections_at_once_and_checks_them() -> None:
    before = TrainOptions.resolve({"recipe": "open"})
    made = before.replace(seed=3, arch="vit_b_16", adaptation="dann", target="photos")
    assert (made.optim.seed, made.model.arch, made.adaptation.target) == (3, "vit_b_16", "photos")
    assert made.data is before.data
    assert before.optim.seed == 42


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "unknown option --epoch. Did you mean --epochs?"),
        ({"epochs": 0}, "--epochs: "),
        ({"recipe": "best"}, "--recipe: "),
        ({"device": "tpu"}, "--device: "),  # the name of a section too
        ({"adaptation": "weather"}, "--adaptation: "),
        ({"adaptation": "dann"}, "--adaptation dann: give --target"),
    ],
)
def test_replacing_by_what_does_not_fit_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        TrainOptions.resolve({}).replace(**values)
    assert str(caught.value).startswith(message)


def test_a_replacement_that_the_command_refuses_is_refused() -> None:
    with pytest.raises(UserError, match="--register d: "):
        CvOptions.resolve({}).replace(register="d")


def test_changed_names_the_options_that_differ_in_the_order_asked_for() -> None:
    options = TrainOptions.resolve({"batch_size": 8, "image_size": 64, "generators": "glide"})
    assert options.changed("generators", "seed", "image_size") == "--generators, --image-size"


# --- the record


@pytest.mark.parametrize("command", ALL)
def test_the_record_resolves_to_the_same_options(command: str) -> None:
    options = ALL[command]
    given = required(options)
    variants: list[dict[str, Any]] = [
        {},
        *({k: v} for k, v in numbers_and_switches(options).items()),
    ]
    variants += [
        {name: "a,b"} for name in ("generators", "narrow", "splits") if name in options.fields()
    ]
    for variant in variants:
        made = options.resolve({**given, **variant})
        record = json.loads(json.dumps(made.to_json()))
        assert set(record) == set(options.fields())
        assert options.resolve(record) == made
        assert options.resolve({k: str(v) for k, v in record.items()}) == made


@pytest.mark.parametrize("options", WITH_RECIPE, ids=lambda c: c.__name__)
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_record_of_any_recipe_resolves_to_the_same_options(
    options: type[Options], recipe: str
) -> None:
    made = options.resolve({"recipe": recipe, "generators": "glide,sd14", "lr": "3e-4"})
    record = json.loads(json.dumps(made.to_json()))
    assert options.resolve(record) == made
    assert options.resolve({k: str(v) for k, v in record.items()}) == made


@pytest.mark.parametrize("command", ALL)
def test_the_flat_record_has_every_option_once_under_its_heading(command: str) -> None:
    options = ALL[command]
    made = options.resolve(required(options))
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
        "model.front_end": "rgb",
        "optim.lr": 0.0001,
        "decision.threshold_rule": "balanced_accuracy",
        "device.workers": "auto",
        "run.recipe": "baseline",
        "run.output": "runs",
    }
    assert {name: flat[name] for name in expected} == expected


def test_no_recorded_name_is_a_name_of_the_command_line() -> None:
    """`mlflow run` records `-P` names with their text; the same name twice would be refused."""
    for options in WITH_RECIPE:
        assert not set(options.resolve({}).to_flat()) & set(options.fields())


# --- what is known of each option


def names_of(options: type[Options]) -> list[str]:
    """The names of all options of a class, repeated if a section repeats them."""
    inside = options.nested_sections()
    return [
        name
        for field in dataclasses.fields(options)
        for name in (names_of(inside[field.name]) if field.name in inside else [field.name])
    ]


@pytest.mark.parametrize("command", ALL)
def test_the_name_of_an_option_is_unique_in_its_command(command: str) -> None:
    names = names_of(ALL[command])
    assert sorted(set(names)) == sorted(names)
    assert set(ALL[command].fields()) == set(names)


@pytest.mark.parametrize("command", ALL)
def test_sections_have_no_sections(command: str) -> None:
    """`value`, `replace` and `places` know one level."""
    assert all(not inner.nested_sections() for inner in ALL[command].nested_sections().values())


@pytest.mark.parametrize("command", ALL)
def test_every_option_has_a_help_text_of_whole_sentences_and_a_heading(command: str) -> None:
    fields = ALL[command].fields()
    assert set(ALL[command].sections()) == set(ALL[command].places()) == set(fields)
    texts = {name: info.description or "" for name, info in fields.items()}
    assert {name: text for name, text in texts.items() if not text.endswith(".")} == {}
    assert {name: text for name, text in texts.items() if not text.strip(".").strip()} == {}


@pytest.mark.parametrize("command", ALL)
def test_what_an_option_affects(command: str) -> None:
    options = ALL[command]
    fields, places = options.fields(), options.places()
    expected = {
        "workers": Affects.SPEED,
        "cache_gib": Affects.SPEED,
        "data": Affects.PLACE,
        "supplement": Affects.PLACE,
        "target": Affects.PLACE,
        "predictions": Affects.PLACE,
        "output": Affects.RECORD,
        "resume": Affects.RECORD,
        "register": Affects.RECORD,
        "keep_last": Affects.RECORD,
        "storage": Affects.RECORD,
        "trials": Affects.BUDGET,
        "lr": Affects.NUMBERS,
        "seed": Affects.NUMBERS,
        "device": Affects.NUMBERS,
        "precision": Affects.NUMBERS,
        "calibration": Affects.NUMBERS,
    }
    if command == "report":
        del expected["output"]
    found = {name: affects(info) for name, info in fields.items()}
    assert found == found | {name: what for name, what in expected.items() if name in fields}
    assert {found[name] for name, place in places.items() if place == "run"} <= {Affects.RECORD}
    for effect in Affects:
        assert options.affecting(effect) == {n for n, what in found.items() if what == effect}
    assert options.affecting(*Affects) == set(fields)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_uses_known_options_and_valid_values(recipe: str) -> None:
    assert set(RECIPES[recipe]) <= set(TrainOptions.fields())
    options = TrainOptions.resolve(RECIPES[recipe])
    assert {name: options.value(name) for name in RECIPES[recipe]} == RECIPES[recipe]


# --- registries

CHOICES: list[tuple[type[Options], str, list[str]]] = [
    (TrainOptions, "arch", list(ARCHITECTURES)),
    (TrainOptions, "front_end", list(FRONT_ENDS)),
    (TrainOptions, "geometry", list(GEOMETRIES)),
    (TrainOptions, "views", list(VIEWS)),
    (PredictOptions, "views", ["card", *VIEWS]),
    (EvaluateOptions, "views", ["card", *VIEWS]),
    (TrainOptions, "loss", list(LOSSES)),
    (TrainOptions, "optimizer", list(OPTIMIZERS)),
    (TrainOptions, "schedule", list(SCHEDULES)),
    (TrainOptions, "adversarial", ["none", *ATTACKS]),
    (TrainOptions, "calibration", list(CALIBRATIONS)),
    (TrainOptions, "threshold_rule", list(THRESHOLD_RULES)),
    (TrainOptions, "recipe", list(RECIPES)),
    (PredictOptions, "ensemble", list(ENSEMBLES)),
    (ExportOptions, "engine", list(ENGINES)),
    (ListOptions, "what", list(LISTS)),
    (RegimesOptions, "archs", list(ARCHITECTURES)),
    (RegimesOptions, "factors", list(FACTORS)),
    (SweepOptions, "strategies", list(STRATEGIES)),
]


@pytest.mark.parametrize(("options", "name", "choices"), CHOICES, ids=lambda c: str(c)[:20])
def test_the_names_that_an_option_accepts_are_those_of_its_registry(
    options: type[Options], name: str, choices: list[str]
) -> None:
    more = {"factorial": True} if options is RegimesOptions else {}
    for choice in choices:
        value = options.resolve({name: choice, **more}).value(name)
        assert value == ((choice,) if isinstance(options.fields()[name].default, tuple) else choice)
    message = refusal({name: "weather"}, options)
    assert message.startswith(f"{option_name(name)}: ")
    assert all(choice in message for choice in choices)


def test_the_adaptations_that_can_be_given_are_those_of_the_registry() -> None:
    for name in ADAPTATIONS:
        made = TrainOptions.resolve({"adaptation": name, "target": "photos"})
        assert made.adaptation.adaptation == name
    message = refusal({"adaptation": "weather"})
    assert all(name in message for name in ("none", *ADAPTATIONS))


@pytest.mark.parametrize(
    ("options", "name"), [(RegimesOptions, "archs"), (SweepOptions, "strategies")]
)
def test_a_name_that_is_given_twice_is_refused(options: type[Options], name: str) -> None:
    first = next(iter(ARCHITECTURES if name == "archs" else STRATEGIES))
    assert refusal({name: f"{first},{first}"}, options).startswith(f"--{name}: {first} ")


def options_modules() -> list[str]:
    """The modules that hold options or registries, which the command line imports for its help."""
    files = [f for p in ("synthdetect", "sweeps") for f in sorted((ROOT / p).rglob("*.py"))]
    return [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in files
        if file.name in ("options.py", "spec.py", "architectures.py", "recipes.py", "kinds.py",
                         "strategies.py", "extension.py")
    ]  # fmt: skip


ENTRIES = {
    f"{module}.{table}[{name}]": entry
    for module in options_modules()
    for table, entries in vars(importlib.import_module(module)).items()
    if isinstance(entries, dict) and entries
    for name, entry in entries.items()
    if isinstance(entry, Entry)
}
"""Every entry of every registry, wherever it is imported."""


def test_the_registries_are_found() -> None:
    found = {id(entry) for entry in ENTRIES.values()}
    for registry in (LOSSES, OPTIMIZERS, SCHEDULES, ADAPTATIONS, ATTACKS, FRONT_ENDS, ENGINES):
        assert {id(entry) for entry in registry.values()} <= found


@pytest.mark.parametrize("entry", {id(e): name for name, e in ENTRIES.items()}.values())
def test_every_entry_of_every_registry_loads_and_has_a_help_text(entry: str) -> None:
    assert callable(ENTRIES[entry].load())
    assert ENTRIES[entry].help.endswith(".")


# --- what the command line imports

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


def test_options_and_registries_import_nothing_heavy() -> None:
    modules = ["synthdetect.cli", *options_modules()]
    assert len(modules) > 15
    program = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
    heavy = [other for other in {(*HEAVY, "optuna")!r} if other in sys.modules]
    assert not heavy, (name, heavy)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
