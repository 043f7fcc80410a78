"""`synthdetect train`: one detector in one tracked run."""

from collections.abc import Mapping
from typing import Any

from synthdetect.runs.messages import announce, command_tags, conclude
from synthdetect.runs.options import TrainOptions
from synthdetect.runs.preflight import preflight, require_learnable
from synthdetect.runs.processes import follow, follows, local_processes
from synthdetect.runs.resume import computing_as_begun, fetch_checkpoint
from synthdetect.runs.training import register_model, run_training
from synthdetect.system.timetable import Part, current, timetable
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.queries import existing
from synthdetect.tracking.results import run_result


def train(options: TrainOptions) -> dict[str, Any]:
    """Train one detector in one run, print the results, and return where they are."""
    if follows():  # torchrun started this process beside the one that tracks
        follow()
        raise SystemExit(0)  # without a result, which only the first process has
    ready = preflight(options)
    options, resume = ready.options, ready.options.run.resume
    require_learnable(options, ready.prepared.manifest)
    name = f"{options.model.arch} {options.recipe}"
    tags = command_tags("train", options)
    with open_run(name, kind="train", tags=tags, resume=resume, tracking=options.tracking) as run:
        announce(run, options, ready.prepared)
        begun: Mapping[str, str] = {}
        if resume:
            fetch_checkpoint(run, options.run.output)
            begun = existing(run.id).params
        whole = Part("training", options.optim.epochs)
        with (
            computing_as_begun(run, begun, ready.device, local_processes(options)) as device,
            timetable([whole]),
            current().part(whole.name),
        ):
            result = run_training(run, options, ready.prepared, device)
        version = register_model(run, result, options.run.register)
    conclude(run, result, options.run.register, version)
    return run_result(run.id, model=f"models:/{result.model.model_id}", version=version or None)
