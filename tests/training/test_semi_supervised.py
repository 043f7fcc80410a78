"""The losses of the papers by hand, the teacher, and the guard, on images of 32 pixels."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from synthdetect.images.options import AugmentationOptions, LaunderingOptions
from synthdetect.system.errors import UserError
from synthdetect.training import checkpoint
from synthdetect.training.loop import (
    Hooks,
    TrainingData,
    TrainingState,
    fit,
    start_training,
    steps_of,
    train_epoch,
)
from synthdetect.training.objective import Objective, Step
from synthdetect.training.options import SEMI_SUPERVISED, SemiSupervisedOptions
from synthdetect.training.semi_supervised import (
    FixMatch,
    MeanTeacher,
    SemiSupervised,
    pseudo_label_precision,
    reference_seed,
)
from tests.training.conftest import CPU, START, Tiny, options_of
from tests.training.test_loop import Data, batches_of, data  # noqa: F401

WEIGHTS = ("unlabelled/weight", "unlabelled/used")


def logit(*probabilities: float) -> Tensor:
    return torch.tensor(probabilities).logit()


def made(name: str, **given: Any) -> SemiSupervised:
    method: SemiSupervised = SEMI_SUPERVISED[name].load()(SemiSupervisedOptions.resolve(given))
    return method


def started(name: str, **given: Any) -> TrainingState:
    torch.manual_seed(0)
    options = options_of(semi_supervised=name, target="elsewhere", **given)
    return start_training(Tiny(), CPU, options)


def batches(data: Data, *, flipped: bool = False, val: bool = True) -> TrainingData:  # noqa: F811
    """60 labelled images, 40 for validation, which may have the wrong labels, 18 unlabelled."""
    held_out, others = data.part(60, 100), data.part(60, 78)
    if flipped:
        held_out = Data(held_out.files, 1 - held_out.labels)
    return TrainingData(
        batches_of(data.part(0, 60), train=True),
        batches_of(held_out, train=False) if val else None,
        batches_of(others, train=True),
        batches_of(others, train=True),
    )


# --- the losses


def test_a_mean_teacher_is_followed_by_the_square_of_the_difference() -> None:
    method = made("mean_teacher", unlabelled_weight=10, consistency_ramp=0.5)
    logits, answers = logit(0.9, 0.2).requires_grad_(), logit(0.6, 0.3)
    loss = method(logits, answers, torch.ones(2), 0.25)
    mean = (0.3**2 + 0.1**2) / 2
    assert loss.item() == pytest.approx(10 * math.exp(-5 * 0.5**2) * mean, rel=1e-5)
    assert method.weight(0.0) == pytest.approx(10 * math.exp(-5))
    assert method.weight(0.5) == method.weight(1.0) == 10
    torch.autograd.backward(loss)
    assert logits.grad is not None
    assert logits.grad[0] > 0 > logits.grad[1]


def test_without_a_ramp_the_whole_weight_counts_at_once() -> None:
    assert made("mean_teacher", consistency_ramp=0).weight(0.0) == 1


def test_fixmatch_learns_confident_answers_alone() -> None:
    method = made("fixmatch", unlabelled_weight=2, align_pseudo_labels=False)
    logits, answers = logit(0.4, 0.4, 0.4, 0.4), logit(0.96, 0.94, 0.03, 0.5)
    loss = method(logits, answers, torch.ones(2), 0.0)
    assert loss.item() == pytest.approx(2 * -(math.log(0.4) + math.log(0.6)) / 4, rel=1e-5)
    metrics = method.pop_metrics()
    assert metrics == {
        "unlabelled/weight": 2.0, "unlabelled/used": 0.5, "unlabelled/synthetic": 0.5,
    }  # fmt: skip
    assert method.pop_metrics() == dict.fromkeys(WEIGHTS, 0.0)


def test_aligned_answers_have_the_odds_of_the_labels_over_those_of_the_answers() -> None:
    method = made("fixmatch", pseudo_label_confidence=0.8)
    assert isinstance(method, FixMatch)
    method.shares.copy_(torch.tensor([0.5, 0.8]))
    # The running means move by 1 % towards those of the step, 0.25 and 0.9, before they align.
    labelled, answered = 0.5 + 0.01 * (0.25 - 0.5), 0.8 + 0.01 * (0.9 - 0.8)
    targets, answers = torch.tensor([0.0, 0.0, 0.0, 1.0]), logit(0.9, 0.9)
    losses, used, synthetic = method.losses(logit(0.5, 0.5), answers, targets)
    torch.testing.assert_close(method.shares, torch.tensor([labelled, answered]))
    odds = 0.9 / 0.1 * labelled / (1 - labelled) * (1 - answered) / answered
    assert odds / (1 + odds) < 0.8 < 0.9
    assert not used.any()
    assert synthetic.all()
    assert not losses.any()


def test_alignment_keeps_a_network_from_calling_everything_synthetic() -> None:
    """Answers that all lean to one side are divided at their mean, after enough steps."""
    method = made("fixmatch", pseudo_label_confidence=0.6)
    targets, answers = torch.tensor([0.0, 1.0]), logit(0.97, 0.6)
    for _ in range(500):
        _, used, synthetic = method.losses(logit(0.5, 0.5), answers, targets)
    assert synthetic.tolist() == [True, False]
    assert used.all()


def test_fixmatch_changes_strongly_what_it_learns_from_and_weakly_what_it_labels() -> None:
    method = made("fixmatch")
    given = AugmentationOptions(jitter=0.3, blur=0.4, rotation=5, crop=24, random_erasing=0.1)
    laundering = LaunderingOptions(degrade=0.5, recompress=1.0)
    assert method.changes(given) == replace(given, random_erasing=1.0)
    weak, launder = method.reference_changes(given, laundering)
    assert weak == replace(given, jitter=0, blur=0, rotation=0, random_erasing=0)
    assert launder == LaunderingOptions()
    both = made("mean_teacher")
    assert both.changes(given) == given
    assert both.reference_changes(given, laundering) == (given, laundering)


# --- the teacher


def noise(seed: int = 0) -> Step:
    images = torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 255
    labels = (torch.arange(8) % 2).float()
    return Step(images[:8], labels, 0.0, images[8:16], images[16:])


def test_a_teacher_is_the_plain_mean_of_the_steps_and_then_an_exponential_average() -> None:
    training = started("mean_teacher", ema_decay=0.7)
    assert training.teacher is None
    expected = torch.zeros(())
    for number in range(1, 7):
        train_epoch(training, [noise(number)], Hooks())
        now = training.network.last.weight.detach().clone()  # type: ignore[operator, union-attr]
        keeps = min(1 - 1 / number, 0.7)
        expected = keeps * expected + (1 - keeps) * now
        assert training.teacher is not None
        torch.testing.assert_close(training.teacher.head.weight.detach(), expected)
    assert training.average.has_statistics


@pytest.mark.parametrize("name", SEMI_SUPERVISED)
def test_the_teacher_answers_in_evaluation_mode_and_gets_no_gradient(name: str) -> None:
    network, teacher = Tiny(dropout=0.9), Tiny(dropout=0.9)
    options = options_of(
        semi_supervised=name, target="there", pseudo_label_confidence=0.5, consistency_ramp=0
    )
    objective = Objective(options, CPU, network)
    network.train()
    teacher.train()
    seen: list[bool] = []
    teacher.register_forward_pre_hook(lambda module, _: seen.append(module.training))
    statistics = teacher.norm.running_mean.clone()  # type: ignore[operator, union-attr]
    loss, logits = objective(network, noise(), teacher)
    torch.autograd.backward(loss)
    assert seen == [False]
    assert teacher.training
    assert network.training
    assert logits.shape == (8,)
    assert torch.equal(teacher.norm.running_mean, statistics)  # type: ignore[arg-type]
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("name", SEMI_SUPERVISED)
def test_unlabelled_images_add_to_the_loss_of_the_labels(name: str) -> None:
    torch.manual_seed(0)
    network, teacher = Tiny().train(), Tiny()
    teacher.last.bias.data += 3

    def loss(weight: float) -> float:
        options = options_of(
            semi_supervised=name, target="there", unlabelled_weight=weight, consistency_ramp=0,
            align_pseudo_labels=False, pseudo_label_confidence=0.6,
        )  # fmt: skip
        return Objective(options, CPU, network)(network, noise(), teacher)[0].item()  # type: ignore[no-any-return]

    once, twice, thrice = (loss(weight) for weight in (1, 2, 3))
    assert twice - once > 1e-3
    assert thrice - twice == pytest.approx(twice - once, rel=1e-3)


@pytest.mark.parametrize("name", SEMI_SUPERVISED)
def test_both_versions_are_of_the_same_images_and_differ(name: str, data: Data) -> None:  # noqa: F811
    training = started(name, jitter=0.5, guard_precision=0, epochs=2)
    parts = batches(data)
    fit(training, parts, Hooks(), epochs=1)
    steps = list(steps_of(training, parts, 2))
    assert len(steps) == 8
    for step in steps:
        assert step.unlabelled is not None
        assert step.reference is not None
        assert step.unlabelled.shape == step.reference.shape
        assert not torch.equal(step.unlabelled, step.reference)
        # Correlation finds the image of each reference, whatever changed brightness and contrast.
        first, second = (
            (x - x.mean(dim=1, keepdim=True)) / x.std(dim=1, keepdim=True)
            for x in (step.unlabelled.flatten(1), step.reference.flatten(1))
        )
        assert (first @ second.T).argmax(dim=1).tolist() == list(range(len(first)))


def test_the_seed_of_the_teachers_version_is_no_seed_that_can_be_given() -> None:
    assert reference_seed(0) == 2**31
    with pytest.raises(Exception, match="--seed"):
        options_of(seed=2**31)


# --- the guard


@pytest.mark.parametrize(
    ("labels", "probabilities", "confidence", "expected"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.7, 0.9], 0.5, 1.0),
        ([0, 0, 1, 1], [0.1, 0.7, 0.7, 0.9], 0.5, 2 / 3),
        ([0, 0, 1, 1], [0.01, 0.7, 0.7, 0.99], 0.95, 1.0),
        ([0, 0, 1, 1], [0.1, 0.7, 0.7, 0.9], 0.95, 0.0),  # no answer is confident
        ([0, 0, 1, 1], [0.99, 0.98, 0.97, 0.99], 0.95, 0.0),  # everything is called synthetic
        ([1, 1, 1, 0], [0.9, 0.9, 0.2, 0.1], 0.5, 3 / 4),  # of real: 1 against 1/3
        ([0.9, 0.8, 0.1, 0.2], [0.9, 0.9, 0.1, 0.2], 0.5, 1.0),  # mixed targets are rounded
    ],
)
def test_the_precision_of_pseudo_labels(
    labels: list[float], probabilities: list[float], confidence: float, expected: float
) -> None:
    logits = logit(*probabilities).numpy()
    assert pseudo_label_precision(labels, logits, confidence) == pytest.approx(expected)


def test_the_precision_does_not_depend_on_the_share_of_the_classes() -> None:
    rng = np.random.default_rng(0)
    logits = np.concatenate([rng.normal(-1, 1, 50), rng.normal(1, 1, 50)])
    labels = np.repeat([0, 1], 50)
    more = np.repeat(np.arange(100), np.where(labels, 9, 1))
    assert pseudo_label_precision(labels[more], logits[more], 0.7) == pytest.approx(
        pseudo_label_precision(labels, logits, 0.7)
    )


@pytest.mark.parametrize("name", SEMI_SUPERVISED)
def test_the_guard_goes_by_the_last_epoch(name: str) -> None:
    method = made(name, guard_precision=0.7)
    good, bad = {"val/pseudo_label_precision": 0.7}, {"val/pseudo_label_precision": 0.69}
    assert not method.trusted([])
    assert method.trusted([bad, good])
    assert not method.trusted([good, bad])
    assert not method.trusted([{"train/loss": 1.0}])
    assert method.trusted([{"train/pseudo_label_precision": 0.8}])
    assert made(name, guard_precision=0).trusted([bad])


@pytest.mark.parametrize("name", SEMI_SUPERVISED)
@pytest.mark.parametrize("val", [True, False])
def test_a_teacher_that_is_right_is_followed_after_the_first_epoch(
    name: str,
    val: bool,
    data: Data,  # noqa: F811
) -> None:
    training = started(name, epochs=6, pseudo_label_confidence=0.6, ema_decay=0.8)
    fit(training, batches(data, val=val), Hooks())
    history = training.progress.history
    assert [history[0][key] for key in WEIGHTS] == [0, 0]
    assert "unlabelled/synthetic" not in history[0]
    assert history[-1]["unlabelled/weight"] > 0
    assert history[-1]["unlabelled/used"] > 0.5
    assert 0 < history[-1]["unlabelled/synthetic"] < 1
    where = "val" if val else "train"
    assert history[-2][f"{where}/pseudo_label_precision"] > 0.8


@pytest.mark.parametrize("name", SEMI_SUPERVISED)
def test_the_guard_keeps_out_the_answers_of_a_teacher_that_is_wrong(
    name: str,
    data: Data,  # noqa: F811
) -> None:
    """The labels of the validation images are the wrong ones, so good answers count as wrong."""
    given = {"epochs": 6, "pseudo_label_confidence": 0.6, "ema_decay": 0.8}
    wrong = batches(data, flipped=True)
    guarded, unguarded = started(name, **given), started(name, guard_precision=0, **given)
    fit(guarded, wrong, Hooks())
    fit(unguarded, wrong, Hooks())
    for record in guarded.progress.history:
        assert [record[key] for key in WEIGHTS] == [0, 0]
        assert record["val/pseudo_label_precision"] < 0.8
    assert all(record["unlabelled/weight"] > 0 for record in unguarded.progress.history[1:])
    # What the guard lets through is a training on the labels alone.
    torch.manual_seed(0)
    labelled = start_training(Tiny(), CPU, options_of(epochs=6))
    fit(labelled, TrainingData(wrong.train, wrong.val), Hooks())
    mine, its = guarded.network.state_dict(), labelled.network.state_dict()
    assert all(torch.equal(mine[key], its[key]) for key in mine)


def test_the_mean_teacher_is_what_is_validated_and_kept(data: Data) -> None:  # noqa: F811
    training = started("mean_teacher", epochs=2)
    fit(training, batches(data), Hooks())
    assert training.evaluated is training.teacher
    assert training.evaluated is not training.network
    assert isinstance(training.objective.semi_supervised, MeanTeacher)


@pytest.mark.parametrize("name", SEMI_SUPERVISED)
def test_the_checkpoint_of_one_method_does_not_fit_another(name: str, tmp_path: Path) -> None:
    others = [options_of()]
    for other in set(SEMI_SUPERVISED) - {name}:
        others.append(options_of(semi_supervised=other, target="there"))
    checkpoint.save(tmp_path / "last.safetensors", started(name), START)
    for options in others:
        other = start_training(Tiny(), CPU, options)
        with pytest.raises(UserError, match="does not fit this configuration"):
            checkpoint.load(tmp_path / "last.safetensors", other)
