"""Reruns of a sweep's trials and final fits, for `reproduce`."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sweeps.extension import EXTENSION
from sweeps.options import SweepOptions
from sweeps.setting import Setting, make_setting
from sweeps.training import FINAL_FOLD, digest_of_parts, fit_finally, tune_in
from synthdetect.commands import reproduce as command
from synthdetect.config import ReproduceOptions, TrainOptions
from synthdetect.datasets.manifest import Manifest
from synthdetect.reproduction.rerun import Again, Recorded, beside
from synthdetect.runs.resume import read_config
from synthdetect.tracking.run import Run
from synthdetect.training.devices import Device

Train = Callable[[Run, TrainOptions, Setting, Device, Path], object]
"""Trains in an open run, with checkpoints in a folder."""


def reproduce(options: ReproduceOptions) -> None:
    """Run the reproduce command with this extension, whether it is installed or not.

    Raises:
        UserError: If the run cannot be rerun, or if its data have changed.
        NotReproduced: If the results differ.
    """
    command.reproduce(options, command.kinds_with([EXTENSION]))


def rerun_trial(recorded: Recorded, device: Device) -> Again:
    """Prepare the rerun of a tuning trial."""
    setting = _setting(recorded, device)
    return _rerun(recorded, setting, device, setting.splits.tuning, tune_in)


def rerun_final_fit(recorded: Recorded, device: Device) -> Again:
    """Prepare the rerun of a final fit."""
    setting = _setting(recorded, device)
    fold = int(recorded.params[FINAL_FOLD])

    def train(
        run: Run, options: TrainOptions, setting: Setting, device: Device, folder: Path
    ) -> object:
        return fit_finally(run, options, setting, device, fold, folder)

    return _rerun(recorded, setting, device, [setting.splits.final[fold]], train)


def _setting(recorded: Recorded, device: Device) -> Setting:
    """The setting of the recorded run's sweep, on the data as they are today."""
    options = read_config(recorded.parent.id)["options"]
    return make_setting(recorded.resolve(SweepOptions, options), device)


def _rerun(
    recorded: Recorded, setting: Setting, device: Device, manifests: list[Manifest], train: Train
) -> Again:
    options = recorded.resolve(TrainOptions, recorded.options)
    if setting.target and options.target:
        options = replace(options, target=str(setting.target[1]))
    whole = setting.prepared.manifest.with_table(setting.splits.parts)
    data = beside(recorded, recorded.parent, replace(setting.prepared, manifest=whole))
    digest = digest_of_parts([setting.data(manifest, options) for manifest in manifests])
    before = recorded.params["data.digest"]
    if data.changes.empty and digest != before:
        data.changes.loc[0] = ["other splits", "", before, digest]

    def train_again(run: Run) -> None:
        folder = Path(options.output) / run.id
        try:
            train(run, options, setting, device, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return Again(options, data.changes, data.moved, train_again)
