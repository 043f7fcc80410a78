"""Export of a detector as a folder in the form of the Hugging Face Hub."""

from pathlib import Path
from typing import Any

from synthdetect.detectors.card import TORCH
from synthdetect.detectors.folders import require_own, save_folder
from synthdetect.report.model_card import README, model_card
from synthdetect.runs.messages import command_tags
from synthdetect.runs.model_cards import measured_of, named
from synthdetect.runs.options import ExportOptions
from synthdetect.runs.setting import log_setting
from synthdetect.system.console import console
from synthdetect.system.errors import UserError
from synthdetect.system.files import replace_atomically, require_folder
from synthdetect.tracking.detectors import find_detector
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.results import run_result


def export_to_hub(options: ExportOptions) -> dict[str, Any]:
    """Write the folder of a detector with its model card, in one tracked run.

    The card shows the results of all runs of the tracking store that have measured the model.

    Raises:
        UserError: If there is no such model, it is exported already, or the folder is not free.
    """
    output = Path(options.output)
    require_folder(output, "--output")
    found = find_detector(options.model)
    card = found.detector.card
    if card.engine != TORCH:
        raise UserError(
            f"--model: {found.name} is exported to {card.engine}; give the detector it was made "
            "from."
        )
    folder = output / f"{card.model.arch.replace(':', '-')}-hub"
    require_own(folder)
    tags = command_tags("export", options)
    title = f"export {card.model.arch} hub"
    with open_run(title, kind="export", tags=tags, tracking=options.tracking) as run:
        log_setting(run, options)
        if found.model_id:
            run.log_model_input(found.model_id)
        card = save_folder(folder, found.detector)
        name, licence = named(card)
        measured = measured_of(found.model_id)
        text = model_card(card, measured, name=name, licence=options.license or licence)
        with replace_atomically(folder / README) as temporary:
            temporary.write_text(text, encoding="utf-8")
        run.log_file(folder / README, "hub")
    if not measured:
        console.print(
            "The model card has no results: no run in the tracking store has measured this model. "
            "`synthdetect evaluate` measures one.",
            style="bold yellow",
        )
    if not (options.license or licence):
        console.print("The model card names no licence; --license names one.", style="bold yellow")
    console.print(f"wrote {folder}")
    console.print(f"use it       synthdetect predict --model {folder} --data IMAGES")
    console.print(f"upload it    hf upload OWNER/NAME {folder}")
    run.print_pages()
    return run_result(run.id, folder=folder)
