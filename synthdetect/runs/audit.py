"""The audit of data in a run of its own."""

from typing import Any

from synthdetect.audit.checks import audit
from synthdetect.audit.figures import draw_audit
from synthdetect.audit.findings import UNSPLIT
from synthdetect.audit.integrity import FULL_SEARCH
from synthdetect.audit.log import log_audit, show
from synthdetect.datasets.index import index
from synthdetect.datasets.manifest import Manifest, load
from synthdetect.datasets.selection import append_supplement, merge_supplement_into_train
from synthdetect.report.writing import write_report
from synthdetect.runs.messages import command_tags
from synthdetect.runs.options import AuditOptions
from synthdetect.runs.setting import log_setting
from synthdetect.system.console import console, counting
from synthdetect.system.errors import UserError
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.results import run_result


def audit_data(options: AuditOptions) -> dict[str, Any]:
    """Audit data in a tracked run, whether or not they could be trained on.

    Raises:
        UserError: If the data cannot be read, or there are warnings and `strict` is given.
    """
    manifest = _indexed(options.data)
    if options.supplement:
        extra = _indexed(options.supplement, "supplement")
        manifest = merge_supplement_into_train(append_supplement(manifest, extra))
    labels = command_tags("audit", options)
    with open_run(
        f"audit {options.data}", kind="audit", tags=labels, tracking=options.tracking
    ) as run:
        console.print(f"run {run.id}  data {manifest.name} ({len(manifest):,} images)")
        log_setting(run, options, digest=manifest.digest())
        run.log_manifest(manifest.with_table(manifest.table.replace({"split": {"": UNSPLIT}})))
        run.log_table(manifest.table, "data/manifest.csv")
        with counting("looking for near-duplicates") as count:
            found = audit(
                manifest,
                seed=options.seed,
                near_duplicates=FULL_SEARCH if options.near_duplicates else None,
                equalise_quality=options.image.equalise_quality if options.image.equalise else 0,
                progress=count,
            )
        log_audit(run, found)
        for name, figure in draw_audit(found):
            run.log_figure(figure, f"figures/audit/{name}.png")
        show(found)
        console.print(f"audit        {', '.join(found.warnings) or 'clean'}")
        if options.strict and found.warnings:
            raise UserError(
                f"--strict: the audit of {manifest.name} warns of {', '.join(found.warnings)}.",
                {"run_id": run.id, "warnings": found.warnings, "findings": found.findings},
            )
    run.print_pages()
    write_report(run.id)
    return run_result(run.id, warnings=found.warnings, findings=found.findings)


def _indexed(data: str, option: str = "--data") -> Manifest:
    with counting("reading the data") as count:
        return index(load(data, option=option), progress=count)
