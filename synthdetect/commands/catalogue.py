"""The commands of the program: a table of their options and functions."""

from synthdetect.commands.command import Command
from synthdetect.commands.options import (
    CompletionOptions,
    DoctorOptions,
    ListOptions,
    ManifestOptions,
    ShardOptions,
    UiOptions,
)
from synthdetect.comparison.options import CompareOptions, PromoteOptions
from synthdetect.report.options import ReportOptions
from synthdetect.reproduction.options import ReproduceOptions
from synthdetect.runs.options import (
    AuditOptions,
    CvOptions,
    EvaluateOptions,
    ExportOptions,
    FeaturesOptions,
    MergeOptions,
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
    "merge-predictions": Command(
        MergeOptions,
        "synthdetect.runs.merging:merge_predictions",
        "merge the parts of a prediction, if they are all of it",
        positional=("files",),
        short={"output": "-o"},
        tracked=False,
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
    "features": Command(
        FeaturesOptions,
        "synthdetect.runs.features:compute_features",
        "compute and cache the features of images",
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
    "compare": Command(
        CompareOptions,
        "synthdetect.comparison.runs:compare_runs",
        "compare runs: settings, metrics on the same images, curves, disagreements",
        positional=("runs",),
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
    "shard": Command(
        ShardOptions,
        "synthdetect.commands.shard:write_shards",
        "pack images into tar shards",
        positional=("data", "output"),
        tracked=False,
    ),
    "list": Command(
        ListOptions,
        "synthdetect.commands.lists:show",
        "list the names that options accept",
        positional=("what",),
        tracked=False,
    ),
    "ui": Command(
        UiOptions,
        "synthdetect.commands.ui:show_ui",
        "open MLflow's UI where the runs are",
        positional=("run_id",),
        result=False,
    ),
    "promote": Command(
        PromoteOptions,
        "synthdetect.comparison.promotion:promote_version",
        "make a version of a model the champion if it is shown to be no worse",
        positional=("name", "version"),
        project=True,
    ),
    "serve": Command(
        ServeOptions,
        "synthdetect.commands.serve:serve",
        "serve a detector by MLflow's protocol, with limits on requests",
        short={"model": "-m", "port": "-p"},
        tracked=False,
        result=False,
    ),
    "doctor": Command(
        DoctorOptions,
        "synthdetect.commands.doctor:examine",
        "say what this machine has, and what will be slow",
        tracked=False,
    ),
    "completion": Command(
        CompletionOptions,
        "synthdetect.commands.completion:print_script",
        "print a script that completes commands in a shell",
        positional=("shell",),
        result=False,
        tracked=False,
    ),
}
"""Commands by name."""
