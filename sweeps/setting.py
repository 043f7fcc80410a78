"""What all trainings of a sweep share: its options, which images do what, and what computes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sweeps.options import SweepOptions
from sweeps.splits import SweepSplits, make_splits, write_target
from sweeps.strategies import BASELINE, STRATEGIES, options_of, space
from synthdetect.config import TrainOptions
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.prepare import Prepared, narrow, prepare_whole
from synthdetect.datasets.splits import require_both_classes
from synthdetect.datasets.target import Target, load_target
from synthdetect.models.networks import check
from synthdetect.system.console import counting
from synthdetect.training.devices import Device, resolve


@dataclass(frozen=True)
class Setting:
    """What all trainings of a sweep share.

    Attributes:
        options: of the sweep.
        base: the baseline's options, as `TrainOptions.resolve` takes them.
        prepared: the data as a whole.
        splits: which images do what.
        target: the images to adapt to, and the file that lists them; None without any.
        device: what computes the baseline.
    """

    options: SweepOptions
    base: Mapping[str, Any]
    prepared: Prepared
    splits: SweepSplits
    target: tuple[Target, Path] | None
    device: Device

    @property
    def names(self) -> tuple[str, ...]:
        """Every side, the baseline first."""
        return (BASELINE, *self.options.sides)

    def training(self, side: str, tuned: Mapping[str, Any], seed: int) -> TrainOptions:
        """The options of one training."""
        target = str(self.target[1]) if self.target else ""
        return replace(options_of(side, self.base, tuned, target), seed=seed)

    def device_for(self, options: TrainOptions) -> Device:
        """What computes one training; which precision `auto` is hangs on the architecture."""
        return resolve(options.device, options.precision, options.workers, options.arch)

    def data(self, manifest: Manifest, options: TrainOptions) -> Prepared:
        """The data of one training."""
        target = self.target[0] if self.target and options.target else None
        return replace(self.prepared, manifest=manifest, target=target)


def make_setting(options: SweepOptions, device: Device) -> Setting:
    """Read the data and deal them out.

    Raises:
        UserError: options or data that do not fit.
    """
    base = {k: v for k, v in options.to_json().items() if k in TrainOptions.fields()}
    for side in (BASELINE, *options.sides):
        first = {name: parameter.first for name, parameter in space(side, options.lr).items()}
        one = options_of(side, base, first, "list.csv")
        check(one.arch, one.image_size, one.weights)
    with counting("reading the data") as count:
        prepared = prepare_whole(options, seed=options.seed, progress=count)
    adapts = any(STRATEGIES[name].needs_target for name in options.sides)
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
        target = (load_target(str(file), prepared.manifest, on_bad_image="stop"), file)
    return Setting(options, base, prepared, splits, target, device)
