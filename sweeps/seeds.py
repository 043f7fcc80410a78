"""Seeds of a sweep's trainings and of its divisions into folds, derived from the study's seed.

No two pairs of final fits have the same seed. If they did, what a start of the weights does to a
side would be in all of its final fits alike, where no variance between them shows it. Tuning has
another seed than any final fit, so that values are not chosen for a start that is then tested.

The baseline and the strategies share the seed within a pair: where a seed means the same to both
sides, such as the order of the images, the change varies less for it. That is sound, since the next
pair has another seed: what the common seed does to a change differs between pairs, and is part of
the variance that is estimated.
"""

from synthdetect.system.seeds import derive_seed

_TUNING, _FINAL, _DIVISION = range(3)


def tuning_seed(seed: int) -> int:
    """Return the seed of all tuning trials, so that values are compared from the same start."""
    return derive_seed(seed, _TUNING)


def final_seed(seed: int, division: int, fold: int) -> int:
    """Return the seed of the final fits of all sides on one fold of one division."""
    return derive_seed(seed, _FINAL, division, fold)


def division_seed(seed: int, division: int) -> int:
    """Return the seed by which the final part is divided into folds.

    The first division has the seed of the study, as all divisions had before there were several;
    the final fits of such records can thus be run again.
    """
    return derive_seed(seed, _DIVISION, division) if division else seed
