"""`synthdetect train`: one detector in one tracked run."""

from collections.abc import Mapping

from synthdetect.runs.messages import announce, command_tags, conclude
from synthdetect.runs.options import TrainOptions
from synthdetect.runs.preflight import preflight
from synthdetect.runs.resume import computing_as_begun, fetch_checkpoint
from synthdetect.runs.training import register_model, run_training
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.queries import existing


def train(options: TrainOptions) -> None:
    """Train one detector in one run and print the results."""
    ready = preflight(options)
    options, resume = ready.options, ready.options.run.resume
    name = f"{options.model.arch} {options.recipe}"
    tags = command_tags("train", options)
    with open_run(name, kind="train", tags=tags, resume=resume) as run:
        announce(run, options, ready.prepared)
        begun: Mapping[str, str] = {}
        if resume:
            fetch_checkpoint(run, options.run.output)
            begun = existing(run.id).params
        with computing_as_begun(run, begun, ready.device) as device:
            result = run_training(run, options, ready.prepared, device)
        version = register_model(run, result, options.run.register)
    conclude(run, result, options.run.register, version)
