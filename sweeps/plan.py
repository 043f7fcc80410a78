"""The dry run of a sweep: its trainings, an estimate of their time, and what they can find."""

import time
from dataclasses import replace
from itertools import chain
from typing import Any

import pandas as pd
import torch

from sweeps import tuning
from sweeps.setting import Setting
from sweeps.statistics import power
from sweeps.statistics.comparison import OUTCOMES, PARTS, part_of, primary_outcome
from sweeps.statistics.power import Components, Design
from sweeps.statistics.verdicts import RULES
from sweeps.strategies import BASELINE, first_values, space
from sweeps.sweep import Sweep
from synthdetect.datasets.labels import REAL, SYNTHETIC
from synthdetect.datasets.splits import group_codes
from synthdetect.evaluation.estimates import independent_sources
from synthdetect.models.networks import build
from synthdetect.runs.messages import selection_warnings
from synthdetect.runs.options import TrainOptions
from synthdetect.system.console import console, table
from synthdetect.tracking.queries import read_table
from synthdetect.training.devices import Device, deterministic
from synthdetect.training.loop import Hooks, start_training, train_epoch
from synthdetect.training.objective import Step
from synthdetect.training.session import model_spec

USUAL = Components(training=0.04, photographs=0.1)
"""What a change of AUC varies by where no earlier sweep says it (docs/comparing-strategies.md)."""


def show_plan(sweep: Sweep) -> list[dict[str, Any]]:
    """Print the trainings of each side with their minutes, and which changes of AUC they find.

    Returns:
        The rows of the table of trainings.
    """
    trainings = _show_trainings(sweep)
    _show_power(sweep)
    return trainings


def _show_trainings(setting: Setting) -> list[dict[str, Any]]:
    """Print the trainings of each side and their minutes without pruning or early stopping.

    The estimate is the time of one training step, measured for each side.
    """
    options = setting.options
    for warning in selection_warnings(setting.prepared):
        console.print(warning, style="bold yellow")
    tuned = [len(manifest.split("train")) for manifest in setting.splits.tuning]
    final = [len(manifest.split("train")) for manifest in chain(*setting.splits.final)]
    images = options.optim.epochs * (options.study.trials * sum(tuned) + sum(final))
    rows, total = [], 0.0
    for side in setting.sides:
        first = first_values(space(side, options.optim.lr, options.optim.epochs))
        training = setting.training(side, first, options.optim.seed)
        seconds = step_seconds(training, setting.device_for(training))
        minutes = seconds / options.optim.batch_size * images / 60
        total += minutes
        trainings = options.study.trials * len(tuned), len(final)
        rows.append([side, *map(str, trainings), f"{1000 * seconds:.0f}", f"{minutes:.1f}"])
    columns = ["side", "trainings in tuning", "final fits", "ms per step", "minutes"]
    table(
        f"{options.study.study}: {len(setting.sides)} sides, {options.optim.epochs} epochs each",
        columns,
        rows,
    )
    console.print(
        f"The training steps take about {total:.0f} minutes in all on one process. Validation and "
        "reading of images add to that; pruning and early stopping save time."
    )
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _show_power(sweep: Sweep) -> None:
    """Print the photographs of the test, and the power of the comparison with them."""
    options = sweep.options.study
    test = sweep.splits.final[0][0].split("test").table
    parts = sweep.splits.test_parts(test, control=test[:0])
    primary = primary_outcome(parts["unseen"])
    table(
        "photographs of the test",
        ["part", "real", "synthetic", "images"],
        [[label, *map(str, _photographs(parts[name])), str(len(parts[name]))]
         for name, label in PARTS.items()],
    )  # fmt: skip
    design = Design(
        fits=sum(map(len, sweep.splits.final)),
        photographs=independent_sources(parts[part_of(primary)]),
        strategies=len(sweep.options.compared),
        error=RULES.error,
    )
    components, origin = _components(sweep)
    console.print(
        f"Verdicts rest on the change of {OUTCOMES[primary].label}. {origin}: its standard "
        f"deviation is {components.training:.3f} between pairs of final fits, and "
        f"{components.photographs:.2f} divided by the square root of the number of photographs."
    )
    if min(design.fits, design.photographs) < 2:
        console.print("One final fit on each side, or one photograph, can show nothing.")
        return
    margin = options.smallest_effect
    found = power.smallest_found(components, design)
    equivalent = power.power_of_equivalence(margin, components, design)
    console.print(
        f"{design.fits} final fits on each side and {design.photographs} photographs find a change "
        f"of {found:.3f} with 80 % power, among {design.strategies} strategies. They show that a "
        f"strategy that equals the baseline is equivalent to within {margin:g} with "
        f"{100 * equivalent:.0f} % power."
    )
    _show_needed(components, design, margin)


def _show_needed(components: Components, design: Design, margin: float) -> None:
    """Print how many fits and photographs reach 80 % power at the smallest effect of interest."""

    def finds(design: Design) -> bool:
        return power.power_to_find(margin, components, design) >= power.WANTED

    def equates(design: Design) -> bool:
        return power.power_of_equivalence(margin, components, design) >= power.WANTED

    def row(fits: int | None, photographs: int | None, aim: str) -> list[str]:
        shown = ("out of reach" if x is None else f"{x:,}" for x in (fits, photographs))
        return [aim, *shown]

    rows = []
    for aim, reaches in (
        (f"find a change of {margin:g}", finds),
        (f"show equivalence to within {margin:g}", equates),
    ):
        rows.append(row(power.fits_needed(reaches, design), design.photographs, aim))
        for fits in (design.fits, 2 * design.fits, 4 * design.fits, 8 * design.fits):
            needed = power.photographs_needed(reaches, replace(design, fits=fits))
            rows.append(row(fits, needed, ""))
    table("what it takes, with 80 % power", ["aim", "final fits", "photographs"], rows)


def _photographs(table: pd.DataFrame) -> tuple[int, int]:
    """Independent photographs among the real and among the synthetic images."""
    groups = pd.Series(group_codes(table), index=table.index)
    real, synthetic = (groups[table["label"] == label].nunique() for label in (REAL, SYNTHETIC))
    return int(real), int(synthetic)


def _components(sweep: Sweep) -> tuple[Components, str]:
    """What changes vary by, and where that is known from."""
    run_id = tuning.run_of(sweep.storage, f"{sweep.options.study.study}/{BASELINE}")
    earlier = read_table(run_id, "sweep/comparison.csv") if run_id else None
    if earlier is not None and {"training_sd", "photograph_sd"} <= set(earlier):
        medians = earlier[["training_sd", "photograph_sd"]].apply(pd.to_numeric).median()
        if medians.notna().all():
            return Components(*map(float, medians)), "As measured in the sweep of this name"
    return USUAL, "Assumed, since there is no earlier sweep of this name"


def step_seconds(options: TrainOptions, device: Device) -> float:
    """Measure the seconds of one training step on random images, the second of two steps."""
    size, count = options.augment.crop or options.image.image_size, options.optim.batch_size
    with deterministic(options.optim.seed):
        training = start_training(build(model_spec(options)), device, options)
        images = (torch.rand(count, 3, size, size) * 255).to(device.torch)
        images = images.contiguous(memory_format=torch.channels_last)
        targets = (torch.arange(count, device=device.torch) % 2).float()
        # Adversarial training starts only after a share of the epochs.
        step = Step(images, targets, float(options.optim.epochs), images)
        train_epoch(training, [step], Hooks())
        began = time.perf_counter()
        train_epoch(training, [step], Hooks())
        return time.perf_counter() - began
