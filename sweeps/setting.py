"""The setting of a sweep: what all its trainings share."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sweeps.options import SweepOptions
from sweeps.splits import SweepSplits, make_splits, write_target
from sweeps.strategies import BASELINE, STRATEGIES, first_values, options_of, space
from synthdetect.config import TrainOptions
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.prepare import Prepared, narrow, prepare_whole
from synthdetect.datasets.splits import require_both_classes
from synthdetect.datasets.target import Target, find_target
from synthdetect.models.networks import check
from synthdetect.system.console import counting
from synthdetect.training.devices import Device, resolve


@dataclass(frozen=True)
class Setting:
    """What all trainings of a sweep share.

    Attributes:
        options: Options of the sweep.
        base: Options of the baseline, as `TrainOptions.resolve` takes them.
        prepared: All data, before they are split.
        splits: The images of tuning and of the final fits.
        target: Images to adapt to, and the file that lists them; None if no strategy adapts.
        device: Device that trains the baseline.
    """

    options: SweepOptions
    base: Mapping[str, Any]
    prepared: Prepared
    splits: SweepSplits
    target: tuple[Target, Path] | None
    device: Device

    @property
    def sides(self) -> tuple[str, ...]:
        """Names of all sides, the baseline first."""
        return (BASELINE, *self.options.compared)

    def training(self, side: str, tuned: Mapping[str, Any], seed: int) -> TrainOptions:
        """Return the options of one training of a side."""
        target = str(self.target[1]) if self.target else ""
        return replace(options_of(side, self.base, tuned, target), seed=seed)

    def device_for(self, options: TrainOptions) -> Device:
        """Return the device of one training; its precision may depend on the architecture."""
        return resolve(options.device, options.precision, options.workers, options.arch)

    def data(self, manifest: Manifest, options: TrainOptions) -> Prepared:
        """Return the data of one training: the images of a manifest, and what it adapts to."""
        target = self.target[0] if self.target and options.target else None
        return replace(self.prepared, manifest=manifest, target=target)


def make_setting(options: SweepOptions, device: Device) -> Setting:
    """Read the data, split them, and check the options of every side.

    Raises:
        UserError: If the options of a side or the data cannot be used.
    """
    base = {k: v for k, v in options.to_json().items() if k in TrainOptions.fields()}
    for side in (BASELINE, *options.compared):
        first = options_of(side, base, first_values(space(side, options.lr)), "list.csv")
        check(first.arch, first.image_size, first.weights)
    with counting("reading the data") as count:
        prepared = prepare_whole(options, seed=options.seed, progress=count)
    adapts = any(STRATEGIES[name].needs_target for name in options.compared)
    splits = make_splits(
        prepared.manifest,
        tuning_share=options.tuning_share,
        tuning_folds=options.tuning_folds,
        folds=options.folds,
        target_share=options.target_share if adapts else 0.0,
        seed=options.seed,
        narrow=partial(narrow, options=options, seed=options.seed),
    )
    for fold in (*splits.tuning, *splits.final):
        require_both_classes(fold)
    target = None
    if adapts:
        file = Path(options.output).absolute() / options.study / "target.csv"
        write_target(splits.target, prepared.manifest, file)
        target = (find_target(str(file), prepared.manifest, on_bad_image="stop"), file)
    return Setting(options, base, prepared, splits, target, device)
