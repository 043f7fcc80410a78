"""`synthdetect serve`: one detector on a port, by MLflow's scoring protocol and as a page."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from synthdetect.page.about import about
from synthdetect.page.routes import add_page
from synthdetect.serving.limits import App
from synthdetect.serving.options import ServeOptions
from synthdetect.serving.server import application, run_server
from synthdetect.system.errors import UserError
from synthdetect.system.threads import apart
from synthdetect.tracking.detectors import Found, find_detectors
from synthdetect.tracking.recorded import Results, read_results


def serve(options: ServeOptions) -> None:
    """Load one detector, without running any code that it brings, and serve it until interrupted.

    Raises:
        UserError: If there is no such model, or the port is not free.
    """
    found = apart(_find, options)
    name = found.name
    make: Callable[[ServeOptions], App] = partial(_application_of, found)
    if options.processes > 1:  # each of them loads the detector itself
        if found.model_id:  # what an alias names may change before a process is replaced
            options = options.replace(model=f"models:/{found.model_id}")
        make = _application
        del found
    run_server(make, name, options)


def _application(options: ServeOptions) -> App:
    return _application_of(_find(options), options)


def _application_of(found: Found, options: ServeOptions) -> App:
    detector = found.detector
    known = about(found.name, detector.card, _results(options.model, found), options)
    return application(
        detector, options, extend=lambda app: add_page(app, detector, known, options)
    )


def _find(options: ServeOptions) -> Found:
    if not options.model:
        raise UserError("--model: give a models:/ URI, a run id, or a .safetensors or .onnx file.")
    found = find_detectors((options.model,))
    if len(found) > 1:
        raise UserError(f"--model: {options.model} has {len(found)} detectors; give one of them.")
    return found[0]


def _results(model: str, found: Found) -> Results | None:
    """Return the evaluations of the run that trained a detector; None for that of a mere file.

    A file may come from anywhere, and asking for its run would make an empty store if there is
    none.
    """
    run_id = str(found.detector.card.provenance.get("run_id", ""))
    is_file = Path(model).expanduser().is_file()
    return read_results(run_id) if run_id and not is_file else None
