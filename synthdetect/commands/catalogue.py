"""The commands of the program: a table of their options and functions."""

from synthdetect.commands.command import Command
from synthdetect.commands.options import ListOptions, ManifestOptions, PromoteOptions
from synthdetect.report.options import ReportOptions
from synthdetect.reproduction.options import ReproduceOptions
from synthdetect.runs.options import (
    AuditOptions,
    CvOptions,
    EvaluateOptions,
    ExportOptions,
    PredictOptions,
    RegimesOptions,
    TrainOptions,
)
from synthdetect.serving.options import ServeOptions
from synthdetect.submission.options import CheckSubmissionOptions

COMMANDS: dict[str, Command] = {
    "train": Command(
        TrainOptions,
        "synthdetect.commands.train:train",
        "train one detector in a tracked run",
        project=True,
    ),
    "cv": Command(
        CvOptions,
        "synthdetect.runs.cross_validation:cross_validate",
        "cross-validate in tracked runs",
        project=True,
    ),
    "regimes": Command(
        RegimesOptions,
        "synthdetect.runs.regimes:study_regimes",
        "train the paper's two regimes, or all combinations of their differences",
        project=True,
    ),
    "predict": Command(
        PredictOptions,
        "synthdetect.runs.prediction:predict_images",
        "score images without labels, and write a submission",
        project=True,
    ),
    "evaluate": Command(
        EvaluateOptions,
        "synthdetect.runs.evaluation:evaluate_detector",
        "evaluate a detector or a table of predictions",
        project=True,
    ),
    "audit": Command(
        AuditOptions,
        "synthdetect.runs.audit:audit_data",
        "find what in the data gives the labels away",
        project=True,
    ),
    "export": Command(
        ExportOptions,
        "synthdetect.runs.export:export_detector",
        "export a detector to a faster inference engine",
        project=True,
    ),
    "reproduce": Command(
        ReproduceOptions,
        "synthdetect.commands.reproduce:reproduce_run",
        "rerun a recorded run and compare the results",
        positional=("run_id",),
        project=True,
    ),
    "report": Command(
        ReportOptions,
        "synthdetect.commands.report:report",
        "write the results of a run as one page",
        positional=("run_id",),
    ),
    "check-submission": Command(
        CheckSubmissionOptions,
        "synthdetect.commands.check_submission:check",
        "find every fault of a submission",
        positional=("file",),
        tracked=False,
    ),
    "manifest": Command(
        ManifestOptions,
        "synthdetect.commands.manifest:write_manifest",
        "write the manifest of a folder of images",
        positional=("folder",),
        short={"output": "-o"},
        tracked=False,
    ),
    "list": Command(
        ListOptions,
        "synthdetect.commands.lists:show",
        "list the names that options accept",
        positional=("what",),
        tracked=False,
    ),
    "promote": Command(
        PromoteOptions,
        "synthdetect.commands.promote:promote_version",
        "make a version of a model the champion",
        positional=("name", "version"),
    ),
    "serve": Command(
        ServeOptions,
        "synthdetect.commands.serve:serve",
        "serve a detector by MLflow's protocol, with limits on requests",
        short={"model": "-m", "port": "-p"},
        tracked=False,
    ),
}
"""Commands by name."""
