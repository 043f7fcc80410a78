"""The platform in Python: what the commands do, with tables of pandas in and out.

Options are keywords with the names of the command line, checked as it checks them: an unknown one
is a `UserError` that suggests the nearest. A table in place of a file, such as `data=frame`, is
written to the folder `data` in that of the option `output`, so that a run can be resumed and
reproduced from it.
"""

import hashlib
import importlib
import inspect
import io
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from synthdetect.config.options import Options, option_name
from synthdetect.runs.options import CvOptions, EvaluateOptions, TrainOptions
from synthdetect.system.errors import UserError
from synthdetect.system.files import replace_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from synthdetect.detectors.card import Card
    from synthdetect.detectors.detector import Detector

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Kind = TypeVar("_Kind", bound=Options)

Images: TypeAlias = str | Path | Sequence[str | Path] | pd.DataFrame
"""Images: a folder, an archive, a manifest file or `sample`; paths; or a table with a column
`path`."""


@dataclass(frozen=True)
class Result:
    """The results of a run, as its artifacts have them.

    Attributes:
        run_id: Id of the run in MLflow.
        metrics: Columns `split`, `metric`, `value`, `low` and `high` (95 % interval).
        generators: Columns `split`, `generator`, `images`, `auc`, `auc_low`, `auc_high` (95 %
            interval) and further metrics: images of a generator against the real ones.
        predictions: A row for each image, with its `path`, `label` (0 real, 1 synthetic), `split`,
            `generator`, `logit`, `probability`, `predicted` and the manifest's further columns.
    """

    run_id: str
    metrics: pd.DataFrame = field(repr=False)
    generators: pd.DataFrame = field(repr=False)
    predictions: pd.DataFrame = field(repr=False)


@dataclass(frozen=True)
class TrainResult(Result):
    """The results of a training.

    Attributes:
        model: URI of the logged model, which `load_detector` takes.
        history: A row for each epoch, by number, with the metrics of training and validation.
    """

    model: str
    history: pd.DataFrame = field(repr=False)


@dataclass(frozen=True)
class CrossValidationResult(Result):
    """The results of a cross-validation; metrics and predictions are those of the pooled folds.

    Attributes:
        folds: A row for each fold, with its metrics.
        model: URI of the refit's model; empty without `refit=True`.
    """

    folds: pd.DataFrame = field(repr=False)
    model: str


@dataclass(frozen=True)
class EvaluationResult(Result):
    """The results of an evaluation.

    Attributes:
        robustness: A row for each split, perturbation and level, with metrics and their changes;
            empty without `robustness=`.
    """

    robustness: pd.DataFrame = field(repr=False)


@dataclass(frozen=True)
class Explained:
    """Where the evidence for answers lies.

    Attributes:
        rows: The images, with `probability` and `predicted`.
        squares: What the network saw, of shape (images, size, size, 3), uint8.
        maps: Grad-CAM maps toward the answer, of shape (images, size, size), 0 to 1.
    """

    rows: pd.DataFrame = field(repr=False)
    squares: npt.NDArray[np.uint8] = field(repr=False)
    maps: npt.NDArray[np.float32] = field(repr=False)

    def figure(self, title: str = "") -> "Figure":
        """Draw each image beside its map."""
        from synthdetect.explanation.figures import explanation_sheet
        from synthdetect.explanation.gradcam import Explanation

        return explanation_sheet(title, Explanation(self.rows, self.squares, self.maps))


@dataclass(frozen=True)
class LoadedDetector:
    """A detector to score images with.

    Attributes:
        name: What it was loaded from.
        detector: The network with its card.
    """

    name: str
    detector: "Detector" = field(repr=False)

    @property
    def card(self) -> "Card":
        """What it takes to use the network: preprocessing, views, decision, and provenance."""
        return self.detector.card

    def predict(
        self, images: Images, *, batch_size: int = 64, device: str = "auto"
    ) -> pd.DataFrame:
        """Score images, as `synthdetect predict` does; no run is made.

        Args:
            images: The images.
            batch_size: Images per batch.
            device: auto, cpu, cuda, or mps.

        Returns:
            A row for each image, in order: `image`, `logit`, `probability`, `label` (0 real, 1
            synthetic), with a band of doubt `unsure`, of a detector that attributes images
            `attributed`, and `error`: why it cannot be read.

        Raises:
            UserError: If there are no images, or a path is listed twice.
        """
        from synthdetect.detectors.scoring import Scoring, add_attribution, answer_table
        from synthdetect.training.devices import deterministic, resolve

        listed = _listed(images)
        names = [listed.name(row) for row in range(len(listed))]
        with tempfile.TemporaryDirectory() as folder:
            scoring = Scoring(Path(folder), [self.detector], listed, data="", batch_size=batch_size)
            with deterministic(0):
                scoring.run(resolve(device, "fp32", "auto"), lambda done, total: None)
            scores = scoring.scores()
        table, _ = answer_table(names, scores, [self.card.decision], "mean_logit")
        add_attribution(table, scores, [self.card])
        return table

    def explain(self, images: Images) -> Explained:
        """Explain the answers to some images by Grad-CAM.

        Args:
            images: The images, all of which can be read.

        Raises:
            UserError: If an image cannot be read, or the layers of the detector cannot be seen.
        """
        from synthdetect.explanation.gradcam import grad_cam
        from synthdetect.models.networks import Network
        from synthdetect.models.spec import architecture

        network, arch = self.detector.network, self.card.model.arch
        if not (isinstance(network, Network) and architecture(arch).cam):
            raise UserError(f"{self.name}: its layers cannot be seen, so it cannot be explained.")
        listed, answers = _listed(images), self.predict(images)
        for name, reason in answers.loc[answers["error"] != "", ["image", "error"]].to_numpy():
            raise UserError(f"{name}: cannot be read: {reason}.")
        contents = [listed.read(row) for row in range(len(listed))]
        squares = np.stack([self.detector.preprocess(content) for content in contents])
        predicted = answers["label"].to_numpy(np.int8)
        maps = grad_cam(network, arch, squares, toward=predicted, views=self.card.views)
        rows = pd.DataFrame(
            {"path": answers["image"], "generator": "image", "label": predicted,
             "predicted": predicted, "probability": answers["probability"]}
        )  # fmt: skip
        if isinstance(images, pd.DataFrame):
            known = images.reset_index(drop=True)
            rows = rows.assign(**{c: known[c] for c in ("generator", "label") if c in known})
        return Explained(rows, squares, maps)


def _options_of(kind: type[Options]) -> Callable[[_Function], _Function]:
    """Let a function's signature show the options that it takes, as `help` and editors read it."""

    def decorate(function: _Function) -> _Function:
        signature = inspect.signature(function)
        options, _ = signature.parameters.values()
        keywords = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if info.is_required() else info.default,
                annotation=info.annotation,
            )
            for name, info in kind.fields().items()
        ]
        vars(function)["__signature__"] = signature.replace(parameters=[options, *keywords])
        return function

    return decorate


@_options_of(TrainOptions)
def train(options: TrainOptions | None = None, /, **keywords: Any) -> TrainResult:
    """Train one detector in one tracked run, as `synthdetect train` does.

    Args:
        options: All options, to which the keywords are changes; by default those of the recipe.
        keywords: Options of `synthdetect train`, such as `data`, `arch` and `epochs`. `data` and
            `supplement` may be tables with the columns of a manifest.

    Raises:
        UserError: If options or data do not fit.
    """
    from synthdetect.commands.train import train as run
    from synthdetect.runs.processes import follows
    from synthdetect.tracking.recorded import read_history

    if follows():
        raise UserError("train: under torchrun only `synthdetect train` trains in all processes.")
    chosen = _chosen(TrainOptions, options, keywords)
    done = run(chosen)
    run_id = done["run_id"]
    return TrainResult(
        **_read(run_id, chosen.data.data),
        model=done["model"],
        history=read_history(run_id),
    )


@_options_of(CvOptions)
def cross_validate(options: CvOptions | None = None, /, **keywords: Any) -> CrossValidationResult:
    """Train a detector for each fold in tracked runs, as `synthdetect cv` does.

    Args:
        options: As of `train`.
        keywords: Options of `synthdetect cv`, such as `folds` and `refit`.

    Raises:
        UserError: If options or data do not fit.
    """
    from synthdetect.runs.cross_validation import cross_validate as run
    from synthdetect.tracking.models import models_of
    from synthdetect.tracking.queries import child_ids, read_table

    chosen = _chosen(CvOptions, options, keywords)
    run_id = run(chosen)["run_id"]
    refit = child_ids(run_id).get("refit", "")
    folds = read_table(run_id, "cv/folds.csv")
    assert folds is not None
    return CrossValidationResult(
        **_read(run_id, chosen.data.data),
        folds=folds,
        model=f"models:/{models_of(refit)[0].model_id}" if refit else "",
    )


@_options_of(EvaluateOptions)
def evaluate(options: EvaluateOptions | None = None, /, **keywords: Any) -> EvaluationResult:
    """Evaluate a detector, or scores of any detector, in a tracked run, as the command does.

    Args:
        options: As of `train`.
        keywords: Options of `synthdetect evaluate`, such as `model` and `data`. `data` and
            `predictions` may be tables.

    Raises:
        UserError: If options, images or the table do not fit.
    """
    from synthdetect.runs.evaluation import evaluate_detector
    from synthdetect.tracking.recorded import read_robustness

    chosen = _chosen(EvaluateOptions, options, keywords)
    run_id = evaluate_detector(chosen)["run_id"]
    return EvaluationResult(**_read(run_id, chosen.data), robustness=read_robustness(run_id))


def load_detector(model: str | Path) -> LoadedDetector:
    """Load a detector, without running any code that it brings.

    Args:
        model: A `.safetensors` or `.onnx` file, a `models:/` URI, or the id of a run.

    Raises:
        UserError: If there is no such detector, or it is damaged.
    """
    from synthdetect.tracking.detectors import find_detector

    found = find_detector((str(model),))
    return LoadedDetector(found.name, found.detector)


def _chosen(kind: type[_Kind], options: _Kind | None, keywords: Mapping[str, Any]) -> _Kind:
    """Return checked options, once tables are files, and require that the store can be used."""
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # torch reads it when imported
    given = {k: str(v) if isinstance(v, Path) else v for k, v in keywords.items()}
    tables = {name: value for name, value in given.items() if isinstance(value, pd.DataFrame)}
    given |= dict.fromkeys(tables, "table")
    chosen = options.replace(**given) if options else kind.resolve(given)
    folder = Path(chosen.value("output")) / "data"
    files = {name: _write(name, table, folder) for name, table in tables.items()}
    importlib.import_module("synthdetect.tracking.store").require_store()
    return chosen.replace(**files) if files else chosen


def _write(name: str, table: pd.DataFrame, folder: Path) -> str:
    """Write the table of an option to a file named after its content.

    Relative paths of images start in the working folder.
    """
    if name != "predictions" and "path" in table:
        table = table.assign(path=_absolute(table["path"]))
    content = io.BytesIO()
    try:
        table.to_parquet(content, index=False)
        file = folder / f"{hashlib.sha256(content.getvalue()).hexdigest()[:16]}.parquet"
        folder.mkdir(parents=True, exist_ok=True)
        with replace_atomically(file) as temporary:
            temporary.write_bytes(content.getvalue())
    except (OSError, ValueError, TypeError) as error:  # pyarrow's errors are ValueErrors
        raise UserError(f"{option_name(name)}: the table cannot be written: {error}") from error
    return str(file)


def _absolute(paths: "pd.Series[Any]") -> list[Any]:
    from synthdetect.images.buckets import is_url

    return [
        os.path.abspath(p) if isinstance(p, str | Path) and str(p) and not is_url(str(p)) else p
        for p in paths
    ]


def _listed(images: Images) -> Any:
    from synthdetect.datasets.manifest import check_paths
    from synthdetect.datasets.unlabelled import ListedFiles, unlabelled

    if isinstance(images, str | Path):
        return unlabelled(str(images), option="images")
    if isinstance(images, pd.DataFrame) and "path" not in images:
        raise UserError(f"images: the table has no column 'path' (got {list(images.columns)}).")
    paths = list(images["path"]) if isinstance(images, pd.DataFrame) else list(images)
    names = [str(path) for path in paths]
    if not names:
        raise UserError("images: there are none.")
    check_paths(pd.Series([os.path.abspath(name) for name in names]), "images")
    return ListedFiles(Path.cwd(), names)


def _read(run_id: str, data: str) -> dict[str, Any]:
    """Return the attributes of `Result`; the paths of images of `data` are made absolute."""
    from synthdetect.datasets.manifest import load
    from synthdetect.tracking.recorded import read_predictions, read_results

    results, predictions = read_results(run_id), read_predictions(run_id)
    if data:
        manifest = load(data)
        predictions["path"] = [manifest.file(path) for path in predictions["path"]]
    return {
        "run_id": run_id,
        "metrics": results.metrics,
        "generators": results.generators,
        "predictions": predictions,
    }
