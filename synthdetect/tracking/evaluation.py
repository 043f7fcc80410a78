"""Logs evaluations, under the same names for all commands."""

from collections.abc import Sequence

from synthdetect.evaluation.figures import draw
from synthdetect.evaluation.predictions import Evaluation
from synthdetect.images.geometry import Preprocess
from synthdetect.tracking.run import Dataset, Run


def log_evaluation(
    run: Run,
    evaluation: Evaluation,
    prefix: str,
    threshold: float,
    *,
    dataset: Dataset | None = None,
    model_id: str | None = None,
    images: tuple[Sequence[str], Preprocess] | None = None,
    figures: bool = True,
) -> None:
    """Log the metrics, tables and figures of one split.

    Args:
        run: The run to log to.
        evaluation: The evaluation of the split.
        prefix: Prefix of the metrics' names.
        threshold: The threshold in use, from 0 to 1.
        dataset: The logged images, to which the metrics are bound.
        model_id: Id of the logged model, to which the metrics are bound.
        images: The image files and their preprocessing, for the figure of the worst mistakes.
        figures: Whether figures are drawn.
    """
    split = evaluation.split
    run.log_metrics(evaluation.flat(prefix), dataset=dataset, model_id=model_id)
    run.log_table(evaluation.predictions, f"predictions/{split}.csv")
    run.log_table(evaluation.overall, f"evaluation/{split}.csv")
    further = {
        "generators": evaluation.generators,
        "oracle": evaluation.oracle,
        "slices": evaluation.slices,
        "matrix": evaluation.matrix,
        "attribution": evaluation.attribution,
        "attribution_metrics": evaluation.attribution_metrics,
    }
    for name, table in further.items():
        if len(table):
            run.log_table(table, f"evaluation/{split}_{name}.csv")
    for name, figure in draw(evaluation, threshold, images) if figures else ():
        run.log_figure(figure, f"figures/{split}/{name}.png")
