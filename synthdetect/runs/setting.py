"""What a run depends on, logged in one way for all kinds of runs."""

import hashlib
from collections.abc import Sequence

from synthdetect.config.options import Options
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.prepare import Prepared
from synthdetect.datasets.target import Target
from synthdetect.system.redaction import without_secrets
from synthdetect.tracking.provenance import environment
from synthdetect.tracking.run import Dataset, Run
from synthdetect.tracking.tags import CONFIG, MANIFEST, TARGET
from synthdetect.training.devices import Device


def log_setting(
    run: Run,
    options: Options,
    *,
    digest: str = "",
    manifest: Manifest | None = None,
    target: Target | None = None,
    device: Device | None = None,
) -> dict[str, Dataset]:
    """Log what a run depends on: options, versions, device and data.

    Args:
        run: The run to log to.
        options: The options of its command.
        digest: The digest of its data, by which resuming and rerunning recognise them; without one
            the run can do neither, and no `CONFIG` is logged.
        manifest: The images, if they are to be listed among the artifacts.
        target: The images to adapt to.
        device: The device that computes, if the run computes itself.

    Returns:
        The logged datasets by split, to which metrics can be bound.
    """
    facts = device.describe().items() if device else ()
    run.log_params(
        {
            **options.to_flat(),
            **{f"hardware.{name}": value for name, value in facts},
            **environment(),
            **({"data.digest": manifest.digest() if manifest else digest} if digest else {}),
        }
    )
    if target:
        run.log_params({"data.target_digest": target.digest()})
        run.log_table(target.table(), TARGET)
    if not digest:
        return {}
    recorded = {
        name: without_secrets(value) if isinstance(value, str) else value
        for name, value in options.to_json().items()
    }
    run.log_json({"options": recorded, "digest": digest}, CONFIG)
    if not manifest:
        return {}
    run.log_table(manifest.table, MANIFEST)
    return run.log_manifest(manifest)


def digest_of_several(parts: Sequence[Prepared]) -> str:
    """Return one digest for the data of several trainings in one run."""
    return hashlib.sha256(" ".join(part.digest() for part in parts).encode()).hexdigest()
