"""`reproduce`, which knows a sweep's trials and final trainings too."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sweeps.options import SweepOptions
from sweeps.setting import Setting, make_setting
from sweeps.training import FINAL_FOLD, digest_of_parts, fit_finally, tune_in
from synthdetect.commands.reproduce import reproduce
from synthdetect.datasets.manifest import Manifest
from synthdetect.reproduction.options import ReproduceOptions
from synthdetect.reproduction.rerun import KINDS, Again, Recorded, beside
from synthdetect.runs.options import TrainOptions
from synthdetect.runs.resume import read_config
from synthdetect.tracking.run import Run
from synthdetect.training.devices import Device

Train = Callable[[Run, TrainOptions, Setting, Device, Path], object]


def reproduce_any(options: ReproduceOptions) -> None:
    """Do a recorded run again, whichever command made it.

    Raises:
        UserError: the run cannot be done again, or the data have changed.
        NotReproduced: it came to something else.
    """
    reproduce(options, {**KINDS, "trial": _trial, "final": _final})


def _trial(recorded: Recorded, device: Device) -> Again:
    setting = _setting(recorded, device)
    return _again(recorded, setting, device, setting.splits.tuning, tune_in)


def _final(recorded: Recorded, device: Device) -> Again:
    setting = _setting(recorded, device)
    fold = int(recorded.params[FINAL_FOLD])

    def train(
        run: Run, options: TrainOptions, setting: Setting, device: Device, folder: Path
    ) -> object:
        return fit_finally(run, options, setting, device, fold, folder)

    return _again(recorded, setting, device, [setting.splits.final[fold]], train)


def _setting(recorded: Recorded, device: Device) -> Setting:
    """The sweep's, with its data as they are now."""
    options = read_config(recorded.parent.id)["options"]
    return make_setting(recorded.resolve(SweepOptions, options), device)


def _again(
    recorded: Recorded, setting: Setting, device: Device, manifests: list[Manifest], train: Train
) -> Again:
    options = recorded.resolve(TrainOptions, recorded.options)
    if setting.target and options.adaptation.target:
        options = replace(options, target=str(setting.target[1]))
    dealt = setting.prepared.manifest.with_table(setting.splits.parts)
    data = beside(recorded, recorded.parent, replace(setting.prepared, manifest=dealt))
    digest = digest_of_parts([setting.data(manifest, options) for manifest in manifests])
    known = recorded.params["data.digest"]
    if data.changes.empty and digest != known:
        data.changes.loc[0] = ["other splits", "", known, digest]

    def again(run: Run) -> None:
        folder = Path(options.run.output) / run.id
        try:
            train(run, options, setting, device, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return Again(options, data.changes, data.moved, again)
