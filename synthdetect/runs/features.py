"""The features of images in a run of their own, which fills the cache that probes train from."""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from synthdetect.datasets.manifest import Manifest, load, write
from synthdetect.datasets.prepare import index_readable
from synthdetect.models.networks import build, require_buildable
from synthdetect.models.spec import ModelSpec
from synthdetect.models.weights import initialise, require_weights
from synthdetect.runs.messages import command_tags
from synthdetect.runs.options import FeaturesOptions
from synthdetect.runs.setting import log_setting
from synthdetect.runs.training import log_start
from synthdetect.system.allocation import keep_freed_memory
from synthdetect.system.console import console, counting
from synthdetect.system.errors import UserError
from synthdetect.system.files import replace_atomically, require_file
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.results import run_result
from synthdetect.training.devices import deterministic, resolve
from synthdetect.training.feature_cache import backbone_sha256
from synthdetect.training.features import features_of
from synthdetect.training.session import preprocessing


def compute_features(options: FeaturesOptions) -> dict[str, Any]:
    """Compute and cache the features of all images of the data, and write them to a file.

    Raises:
        UserError: If options, data, device or weights do not fit, or the file cannot be written.
    """
    model, size = options.model, options.image.image_size
    spec = ModelSpec.of(model.arch, size, model.front_end)
    require_buildable(spec)
    require_weights(model.weights, model.arch)
    output = Path(options.output).expanduser()
    if options.output:
        require_file(output, "--output")
        listed = output.with_suffix(".csv")
        require_file(listed, "--output")
        if listed.exists() and not output.exists():
            raise UserError(
                f"--output {output}: {listed}, which would list its images, exists and is of "
                "something else. Give another name."
            )
    device = resolve(options.device.device, "fp32", options.device.workers, model.arch)
    with counting("reading the data") as count:
        manifest, excluded = index_readable(load(options.data), options.on_bad_image, count)
    tags = command_tags("features", options)
    with open_run(
        f"features {model.arch}", kind="features", tags=tags, tracking=options.tracking
    ) as run:
        console.print(f"run {run.id}  data {manifest.name} ({len(manifest):,} images)")
        log_setting(run, options, digest=manifest.digest(), device=device)
        if len(excluded):
            run.log_table(excluded, "data/excluded.csv")
        keep_freed_memory()
        with deterministic(options.seed):
            network = build(spec)
            log_start(run, initialise(network, model.weights))
            network.to(device.torch)
            with counting("computing features") as count:
                found = features_of(network, manifest, preprocessing(options.image), device, count)
        cached = len(manifest) - found.computed
        speed = found.computed / found.seconds
        run.log_params({"features.backbone_sha256": backbone_sha256(network)})
        run.log_metrics(
            {
                "features/computed": float(found.computed),
                "features/cached": float(cached),
                "features/length": float(network.features),
                **({"features/images_per_second": speed} if found.computed else {}),
            }
        )
        if options.output:
            _write(found.values, manifest, output)
            console.print(f"wrote        {output}, {output.with_suffix('.csv')}")
        rate = f", {speed:.1f} images/s" if found.computed else ""
        console.print(f"features     {network.features} of each image")
        console.print(f"images       {found.computed:,} computed, {cached:,} cached{rate}")
        run.print_pages()
    return run_result(run.id, file=options.output or None)


def _write(features: Tensor, manifest: Manifest, output: Path) -> None:
    """Write features and, in the same order, the rows of the manifest."""
    output.parent.mkdir(parents=True, exist_ok=True)
    write(manifest, output.with_suffix(".csv"))
    with replace_atomically(output) as temporary:
        save_file({"features": features}, temporary, metadata={"manifest": manifest.digest()})
