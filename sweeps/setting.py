"""The setting of a sweep: what all its trainings share."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from sweeps.options import SweepOptions
from sweeps.splits import SweepSplits, make_splits, write_target
from sweeps.strategies import BASELINE, STRATEGIES, first_values, options_of, space
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.pairs import require_photographs
from synthdetect.datasets.prepare import Prepared, narrow, prepare_whole
from synthdetect.datasets.splits import require_both_classes
from synthdetect.datasets.target import Target, load_target
from synthdetect.runs.options import TrainOptions
from synthdetect.runs.preflight import require_trainable, resolve_device
from synthdetect.system.console import counting
from synthdetect.training.devices import Device


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
        """Return the options of one training of a side, which keeps no last checkpoint."""
        target = str(self.target[1]) if self.target else ""
        return options_of(side, self.base, tuned, target).replace(seed=seed, keep_last=False)

    def device_for(self, options: TrainOptions) -> Device:
        """Return the device of one training; its precision may depend on the architecture."""
        return resolve_device(options.device, options.model.arch)

    def data(self, manifest: Manifest, options: TrainOptions) -> Prepared:
        """Return the data of one training: the images of a manifest, and what it adapts to."""
        target = self.target[0] if self.target and options.adaptation.target else None
        return replace(self.prepared, manifest=manifest, target=target)


def make_setting(options: SweepOptions, device: Device) -> Setting:
    """Read the data, split them, and check the options of every side.

    Raises:
        UserError: If the options of a side or the data cannot be used.
    """
    base = {k: v for k, v in options.to_json().items() if k in TrainOptions.fields()}
    paired = False
    for side in (BASELINE, *options.compared):
        first = first_values(space(side, options.optim.lr, options.optim.epochs))
        training = options_of(side, base, first, "list.csv")
        require_trainable(training)
        paired |= training.pair.needed
    with counting("reading the data") as count:
        prepared = prepare_whole(options.data, seed=options.optim.seed, progress=count)
    adapts = any(STRATEGIES[name].needs_target for name in options.compared)
    splits = make_splits(
        prepared.manifest,
        tuning_share=options.study.tuning_share,
        tuning_folds=options.study.tuning_folds,
        folds=options.study.folds,
        divisions=options.study.seeds,
        target_share=options.study.target_share if adapts else 0.0,
        seed=options.optim.seed,
        narrow=partial(narrow, options=options.data, seed=options.optim.seed),
    )
    for fold in chain(splits.tuning, *splits.final):
        require_both_classes(fold)
        if paired:
            require_photographs(fold)
    target = None
    if adapts:
        file = Path(options.study.output).absolute() / options.study.study / "target.csv"
        write_target(splits.target, prepared.manifest, file)
        target = (load_target(str(file), prepared.manifest, on_bad_image="stop"), file)
    return Setting(options, base, prepared, splits, target, device)
