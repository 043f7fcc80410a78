"""`synthdetect ui`: MLflow's UI on the store that the commands use, opened where the runs are."""

import socket
import webbrowser

from synthdetect.commands.options import UiOptions
from synthdetect.system.console import console
from synthdetect.system.errors import UserError
from synthdetect.tracking import addresses
from synthdetect.tracking.availability import waiting_client
from synthdetect.tracking.opening import end_left_behind
from synthdetect.tracking.queries import existing_entity
from synthdetect.tracking.store import is_server, make_store, tracking_uri
from synthdetect.tracking.ui import serving
from synthdetect.tracking.views import ALL, save_view_of_all


def show_ui(options: UiOptions) -> None:
    """Open the page of a run, or the table of an experiment's runs, and serve it if need be.

    Runs whose process has ended without ending them are ended first.

    Raises:
        UserError: If there is no such run or experiment, or the port is not free.
    """
    make_store()
    page = _page(options)
    if is_server():
        _open(page, options)
        return
    _require_free(options.port)
    console.print(f"starting MLflow's UI on {tracking_uri()}")
    with serving(options.port) as server:
        _open(page, options)
        console.print("Press Ctrl-C to end it.")
        try:
            server.wait()
        except KeyboardInterrupt as interrupt:
            if type(interrupt) is not KeyboardInterrupt:  # SIGTERM
                raise
            return
    raise UserError(f"mlflow ui has ended with exit status {server.returncode}.")


def _page(options: UiOptions) -> str:
    client = waiting_client()
    at = addresses.server(options.port)
    experiments = client.search_experiments()
    end_left_behind(client, [experiment.experiment_id for experiment in experiments])
    if options.run_id:
        run = existing_entity(options.run_id)
        return addresses.run_page(run.info.experiment_id, run.info.run_id, at)
    if options.experiment:
        names = {experiment.name: experiment.experiment_id for experiment in experiments}
        if options.experiment not in names:
            raise UserError(
                f"--experiment: no {options.experiment!r} in {tracking_uri()}. "
                f"Found: {', '.join(sorted(names))}."
            )
        found = names[options.experiment]
    else:  # that of the newest run
        runs = client.search_runs(
            [experiment.experiment_id for experiment in experiments],
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        found = runs[0].info.experiment_id if runs else "0"
    save_view_of_all(client, found)
    return addresses.runs_page(found, ALL, at)


def _require_free(port: int) -> None:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        raise UserError(
            f"--port {port}: not free ({error.strerror}). Another synthdetect ui or mlflow ui may "
            "run there; end it, or give another port."
        ) from error


def _open(page: str, options: UiOptions) -> None:
    console.print(f"look at it   {page}")
    if not options.no_browser:
        webbrowser.open(page)
