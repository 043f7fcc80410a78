"""Reruns of a sweep's trials and final fits, for `reproduce`."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeps.extension import EXTENSION
from sweeps.options import SweepOptions
from sweeps.setting import Setting, make_setting
from sweeps.training import FINAL_DIVISION, FINAL_FOLD, fit_finally, tune_in
from synthdetect.commands.reproduce import reproduce_run
from synthdetect.datasets.manifest import Manifest
from synthdetect.reproduction.options import ReproduceOptions
from synthdetect.reproduction.rerun import RecordedRun, Rerun, diff_data
from synthdetect.runs.options import TrainOptions
from synthdetect.runs.resume import read_config
from synthdetect.runs.setting import digest_of_several
from synthdetect.tracking.run import Run
from synthdetect.training.devices import Device

Train = Callable[[Run, TrainOptions, Setting], object]
"""Trains in an open run."""


def reproduce(options: ReproduceOptions) -> dict[str, Any]:
    """Run the reproduce command with this extension, whether it is installed or not."""
    return reproduce_run(options, [EXTENSION])


def rerun_trial(recorded: RecordedRun, device: Device) -> Rerun:
    """Prepare the rerun of a tuning trial."""
    setting = _setting(recorded, device)

    def train(run: Run, options: TrainOptions, setting: Setting) -> None:
        folder = Path(options.run.output) / run.id
        try:
            tune_in(run, options, setting, device, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return _rerun(recorded, setting, setting.splits.tuning, train)


def rerun_final_fit(recorded: RecordedRun, device: Device) -> Rerun:
    """Prepare the rerun of a final fit."""
    setting = _setting(recorded, device)
    division = int(recorded.params.get(FINAL_DIVISION, 0))  # older records have only one
    fold = int(recorded.params[FINAL_FOLD])

    def train(run: Run, options: TrainOptions, setting: Setting) -> None:
        fit_finally(run, options, setting, device, division, fold)

    return _rerun(recorded, setting, [setting.splits.final[division][fold]], train)


def _setting(recorded: RecordedRun, device: Device) -> Setting:
    """Return the setting of the recorded run's sweep, on the data as they are today."""
    options = read_config(recorded.parent.id)["options"]
    return make_setting(recorded.resolve(SweepOptions, options), device)


def _rerun(
    recorded: RecordedRun, setting: Setting, manifests: list[Manifest], train: Train
) -> Rerun:
    options = recorded.resolve(TrainOptions, recorded.options)
    if setting.target and options.adaptation.target:
        options = options.replace(target=str(setting.target[1]))
    whole = setting.prepared.manifest.with_table(setting.splits.parts)
    data = diff_data(recorded, recorded.parent, replace(setting.prepared, manifest=whole))
    parts = [setting.data(manifest, options) for manifest in manifests]
    digests = [digest_of_several(parts), parts[0].digest()]  # of a trial, of a final fit
    before = read_config(recorded.run.id)["digest"]
    if data.diff.empty and before not in digests:
        data.diff.loc[0] = ["other splits", "", before, digests[0]]
    return Rerun(options, data.diff, data.moved, lambda run: train(run, options, setting))
