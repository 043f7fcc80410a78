"""Logging of Grad-CAM explanations and mean spectra."""

from collections.abc import Sequence

from synthdetect.detectors.detector import Detector
from synthdetect.evaluation.examples import sample_hits, worst_mistakes
from synthdetect.evaluation.predictions import Evaluation
from synthdetect.explanation.figures import (
    explanation_images,
    explanation_sheet,
    spectra_figures,
)
from synthdetect.explanation.gradcam import explain
from synthdetect.explanation.spectra import fingerprints, mean_spectra, radial_table
from synthdetect.models.networks import Network
from synthdetect.models.spec import architecture
from synthdetect.system.console import console
from synthdetect.tracking.run import Run


def log_explanations(
    run: Run, evaluation: Evaluation, detector: Detector, files: Sequence[str],
    threshold: float, count: int,
    *, seed: int,
) -> None:  # fmt: skip
    """Log Grad-CAM of the worst mistakes and of a sample of correct predictions of one split.

    Args:
        run: run to log to.
        evaluation: evaluation of the split.
        detector: detector that made the predictions; not an exported one.
        files: image files, in the order of the predictions.
        threshold: threshold from validation.
        count: maximum number of mistakes, and of correct predictions.
        seed: seed of the sample.
    """
    split, table = evaluation.split, evaluation.predictions
    network, arch = detector.network, detector.card.model.arch
    if not architecture(arch).cam:
        console.print(f"No layer of {arch} is known that Grad-CAM can explain.")
        return
    assert isinstance(network, Network)  # an exported network gives no access to its layers
    chosen = {
        "mistakes": worst_mistakes(table, threshold, count),
        "hits": sample_hits(table, count, seed=seed),
    }
    for kind, positions in chosen.items():
        if not len(positions):
            continue
        explained = explain(
            network, arch, table, positions, files, detector.preprocess,
            views=detector.card.views,
        )  # fmt: skip
        sheet = explanation_sheet(f"{split}: {kind}", explained)
        run.log_figure(sheet, f"figures/{split}/explain_{kind}.png")
        for name, image in explanation_images(explained):
            run.log_image(image, f"explain/{split}/{kind}/{name}")


def log_spectra(
    run: Run, evaluation: Evaluation, files: Sequence[str], workers: int, *, seed: int
) -> None:
    """Log the mean spectra of one split's images by generator.

    Args:
        run: run to log to.
        evaluation: evaluation of the split.
        files: image files, in the order of the predictions.
        workers: number of worker processes that read images.
        seed: seed of the bootstrap.
    """
    split = evaluation.split
    spectra = mean_spectra(files, evaluation.predictions, seed=seed, workers=workers)
    for name, figure in spectra_figures(spectra):
        run.log_figure(figure, f"figures/{split}/{name}.png")
    tables = {
        "radial": radial_table(spectra),
        "fingerprints": fingerprints(spectra),
        "left_out": spectra.left_out,
    }
    for name, table in tables.items():
        if len(table):
            run.log_table(table, f"spectra/{split}_{name}.csv")
