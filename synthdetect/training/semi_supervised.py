"""Learning from unlabelled images by a network's own answers, with a guard against its errors.

`synthdetect.training.options.SEMI_SUPERVISED` names the methods. A step has a batch of unlabelled
images twice, changed at random in two ways. The teacher answers to one version, and the network
that learns is to give this answer to the other version. The teacher is in evaluation mode, and no
gradient reaches it.

A teacher that is wrong confirms its errors. The guard therefore measures after each epoch how often
the answers to images with known labels are right. Where they are not right often enough, the next
epoch trains on the labelled images alone, and so does the first epoch. The guard's measurements are
metrics of the epochs, so that a checkpoint holds them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.special import expit
from torch import Tensor, nn

from synthdetect.images.options import AugmentationOptions, LaunderingOptions
from synthdetect.training.options import SemiSupervisedOptions

PRECISION = "pseudo_label_precision"
"""Name of the guard's measurement, behind `val/`, or behind `train/` without validation images."""

_SHARE_DECAY = 0.99  # what a step keeps of the shares that align pseudo-labels


class SemiSupervised(nn.Module):
    """What both methods share: the weight of their loss, the guard, and the metrics of an epoch.

    It is a module because the shares that align pseudo-labels are part of a checkpoint.
    """

    def __init__(self, options: SemiSupervisedOptions) -> None:
        super().__init__()
        self.options = options
        self._steps: list[Tensor] = []

    @property
    def confidence(self) -> float:
        """Least probability that an answer must have to be learnt, 0.5 to 1."""
        raise NotImplementedError

    def weight(self, progress: float) -> float:
        """Return the weight of the loss when a share of the training (0 to 1) is done."""
        raise NotImplementedError

    def changes(self, augment: AugmentationOptions) -> AugmentationOptions:
        """Return the random changes of the version that is learnt from."""
        return augment

    def reference_changes(
        self, augment: AugmentationOptions, launder: LaunderingOptions
    ) -> tuple[AugmentationOptions, LaunderingOptions]:
        """Return the random changes of the version that the teacher sees."""
        return augment, launder

    def losses(
        self, logits: Tensor, answers: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss of each unlabelled image, whether it is used, and whether it is called
        synthetic, each of shape (unlabelled,).

        Args:
            logits: Of the network that learns, shape (unlabelled,).
            answers: Logits of the teacher for the other version of the same images.
            targets: Of the labelled images of the step, from 0 to 1, shape (labelled,).
        """
        raise NotImplementedError

    def forward(self, logits: Tensor, answers: Tensor, targets: Tensor, progress: float) -> Tensor:
        """Return the weighted mean loss of a step; the arguments are those of `losses`."""
        losses, used, synthetic = self.losses(logits, answers, targets)
        weight = self.weight(progress)
        size = torch.full_like(losses, 1.0)
        counts = torch.stack([size, used.float(), (used & synthetic).float()]).sum(dim=1)
        self._steps.append(torch.cat([counts, counts.new_tensor([weight])]))
        return weight * losses.mean()

    def trusted(self, history: Sequence[Mapping[str, float]]) -> bool:
        """Return whether the next epoch may use unlabelled images, by what the last one measured.

        Args:
            history: The metrics of every epoch done.
        """
        if not history:
            return False
        last = history[-1]
        precision = last.get(f"val/{PRECISION}", last.get(f"train/{PRECISION}", 0.0))
        return precision >= self.options.guard_precision

    def pop_metrics(self) -> dict[str, float]:
        """Return what the steps since the last call did with the unlabelled images.

        `unlabelled/weight` is the mean weight of the loss and `unlabelled/used` the share of the
        images whose answer was learnt; both are 0 where the guard kept the unlabelled images out.
        `unlabelled/synthetic` is the share of those used that were called synthetic, and is absent
        if there were none.
        """
        if not self._steps:
            return {"unlabelled/weight": 0.0, "unlabelled/used": 0.0}
        steps = torch.stack(self._steps).cpu().double()  # MPS has no double precision
        images, used, synthetic, weight = steps.sum(dim=0).tolist()
        result = {"unlabelled/weight": weight / len(self._steps), "unlabelled/used": used / images}
        if used:
            result["unlabelled/synthetic"] = synthetic / used
        self._steps.clear()
        return result


class MeanTeacher(SemiSupervised):
    """Mean teacher (Tarvainen and Valpola 2017).

    The teacher is the exponential moving average of the weights. The loss is the squared difference
    of the probabilities, with a weight that rises by exp(-5 (1 - t)^2), t from 0 to 1 over
    `consistency_ramp`. The paper has it for labelled images too; these may be mixed or attacked
    here, so they are learnt by their labels alone.
    """

    @property
    def confidence(self) -> float:
        return 0.5

    def weight(self, progress: float) -> float:
        ramp = self.options.consistency_ramp
        t = min(progress / ramp, 1.0) if ramp else 1.0
        return self.options.unlabelled_weight * math.exp(-5 * (1 - t) ** 2)

    def losses(
        self, logits: Tensor, answers: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        differences = (logits.sigmoid() - answers.sigmoid()).square()
        return differences, torch.ones_like(answers, dtype=torch.bool), answers > 0


class FixMatch(SemiSupervised):
    """FixMatch (Sohn et al. 2020), with aligned pseudo-labels (Berthelot et al. 2020).

    The teacher is the network itself, which sees a version that is only cropped and flipped. Where
    its answer is confident, it is the pseudo-label of a strongly changed version. The strong
    changes of the paper (posterising, shearing and the like) would destroy the traces of
    generators; here they are the changes that the options ask for, and a rectangle that is always
    erased, which leaves the traces elsewhere as they are.

    Alignment multiplies the odds of an answer by those of the class shares of the labelled images,
    and divides them by those of the mean answer. Both are running means over the steps. It expects
    the classes to be as frequent among the unlabelled images as among the labelled ones.
    """

    shares: Tensor

    def __init__(self, options: SemiSupervisedOptions) -> None:
        super().__init__(options)
        # Share of synthetic images among the labels, and in the mean of the answers.
        self.register_buffer("shares", torch.full((2,), 0.5))

    @property
    def confidence(self) -> float:
        return self.options.pseudo_label_confidence

    def weight(self, progress: float) -> float:
        return self.options.unlabelled_weight

    def changes(self, augment: AugmentationOptions) -> AugmentationOptions:
        return replace(augment, random_erasing=1.0)

    def reference_changes(
        self, augment: AugmentationOptions, launder: LaunderingOptions
    ) -> tuple[AugmentationOptions, LaunderingOptions]:
        weak = replace(augment, jitter=0.0, blur=0.0, rotation=0.0, random_erasing=0.0)
        return weak, LaunderingOptions()

    def losses(
        self, logits: Tensor, answers: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        if self.options.align_pseudo_labels:
            now = torch.stack([targets.mean(), answers.sigmoid().mean()])
            self.shares.lerp_(now, 1 - _SHARE_DECAY)
            labelled, answered = self.shares.logit(eps=1e-6)
            answers = answers + labelled - answered
        labels = (answers > 0).float()
        used = answers.abs().sigmoid() >= self.confidence
        losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return losses * used, used, answers > 0


def reference_seed(seed: int) -> int:
    """Return the seed of the version that the teacher sees, which no training has as its own."""
    return seed + 2**31


def pseudo_label_precision(
    labels: npt.ArrayLike, logits: npt.ArrayLike, confidence: float
) -> float:
    """Return the precision of pseudo-labels on images with known labels, 0 to 1.

    It is the lesser of the precisions of the two labels, each computed as if both classes had
    equally many images, so that a network cannot reach it by giving every image the more frequent
    label. A label that no image gets has the precision 0.

    Args:
        labels: Labels or mixed targets, which are rounded, shape (images,); both classes occur.
        logits: Shape (images,).
        confidence: Least probability of a label that is given.
    """
    synthetic, probabilities = np.asarray(labels) >= 0.5, expit(np.asarray(logits))
    precisions = []
    for own, probability in ((synthetic, probabilities), (~synthetic, 1 - probabilities)):
        called = probability >= confidence
        right, wrong = called[own].mean(), called[~own].mean()
        precisions.append(float(right / (right + wrong)) if right + wrong else 0.0)
    return min(precisions)
