"""`synthdetect serve`: one detector on a port, by MLflow's scoring protocol."""

from synthdetect.serving.options import ServeOptions
from synthdetect.serving.server import run_server
from synthdetect.system.errors import UserError
from synthdetect.tracking.detectors import find_detectors


def serve(options: ServeOptions) -> None:
    """Load one detector, without running any code that it brings, and serve it until interrupted.

    Raises:
        UserError: If there is no such model, or the port is not free.
    """
    if not options.model:
        raise UserError("--model: give a models:/ URI, a run id, or a .safetensors or .onnx file.")
    found = find_detectors((options.model,))
    if len(found) > 1:
        raise UserError(f"--model: {options.model} has {len(found)} detectors; give one of them.")
    run_server(found[0].detector, found[0].name, options)
