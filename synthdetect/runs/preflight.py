"""Everything about a training that can be checked before its run is opened."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.pairs import require_photographs
from synthdetect.datasets.prepare import Prepared, prepare
from synthdetect.datasets.target import load_target
from synthdetect.models.networks import require_buildable
from synthdetect.models.weights import require_weights
from synthdetect.runs.options import RecipeOptions, TrainOptions
from synthdetect.runs.processes import processes_here, require_devices, with_processes
from synthdetect.runs.resume import recorded_options, require_same_data
from synthdetect.system.console import counting
from synthdetect.system.files import require_folder
from synthdetect.training.attribution import attributed_generators
from synthdetect.training.devices import Device, require_compiler, resolve
from synthdetect.training.options import TrainingDeviceOptions, TrainingOptions
from synthdetect.training.session import model_spec, require_parts

AnyTrainOptions = TypeVar("AnyTrainOptions", bound=TrainOptions)


@dataclass(frozen=True)
class Preflight(Generic[AnyTrainOptions]):
    """What a training, or several, can begin with.

    Attributes:
        options: The options; of a resumed run those that it recorded.
        device: The device that computes.
        prepared: The data.
    """

    options: AnyTrainOptions
    device: Device
    prepared: Prepared


def preflight(
    options: AnyTrainOptions, prepare_data: Callable[..., Prepared] = prepare
) -> Preflight[AnyTrainOptions]:
    """Check everything that can be checked before a run is opened.

    Args:
        options: The options of the training, or trainings.
        prepare_data: How the data are prepared: `prepare` or `prepare_whole`.

    Raises:
        UserError: If options, data, device or initial weights do not fit.
    """
    digest, resume = "", options.run.resume
    if resume:
        options, digest = recorded_options(options)
    options = with_processes(options)
    require_trainable(options, resumes=bool(resume))
    require_folder(Path(options.run.output), "--output")
    device = resolve_device(options.device, options.model.arch, processes_here(options))
    require_devices(options, device)
    with counting("reading the data") as count:
        prepared = prepare_data(options.data, seed=options.optim.seed, progress=count)
    prepared = with_target(options, prepared)
    if digest:
        require_same_data(prepared, digest, resume)
    return Preflight(options, device, prepared)


def require_trainable(options: TrainingOptions, *, resumes: bool = False) -> None:
    """Check that a network can be built, and that its initial weights are a name or a file.

    Args:
        options: The options of the training.
        resumes: Whether the training resumes, and so does not need its initial weights.

    Raises:
        UserError: If the network cannot be built, or the weights are neither.
    """
    require_buildable(model_spec(options))
    if not resumes:
        require_weights(options.model.weights, options.model.arch)


def require_learnable(options: TrainingOptions, manifest: Manifest) -> None:
    """Check that the training images have the generators and the pairs that options need.

    Raises:
        UserError: If they have not, or are too few to divide.
    """
    require_parts(manifest, options.optim.parts)
    attributed_generators(options.loss, manifest)
    if options.pair.needed:
        require_photographs(manifest)


def resolve_device(options: TrainingDeviceOptions, arch: str, processes: int = 1) -> Device:
    """Return the device and precision that train an architecture.

    Args:
        options: What was asked for.
        arch: The architecture.
        processes: Processes among which the cores of this machine are divided.

    Raises:
        UserError: If there is no such device, it does not support the precision, or steps cannot be
            compiled for it.
    """
    device = resolve(options.device, options.precision, options.workers, arch, processes)
    if options.compile:
        require_compiler(device)
    return device


def with_target(options: RecipeOptions, prepared: Prepared) -> Prepared:
    """Return the data with the images to adapt to, if the options name some.

    Raises:
        UserError: If they do not exist or do not fit.
    """
    target = options.adaptation.target
    if not target:
        return prepared
    with counting("reading the target") as count:
        found = load_target(
            target, prepared.manifest, on_bad_image=options.data.on_bad_image, progress=count
        )
    return prepared.with_target(found)
