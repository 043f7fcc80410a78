"""Seeds derived from other seeds."""

import numpy as np


def derive_seed(seed: int, *key: int) -> int:
    """Derive the seed of one training among several from the seed of all.

    Args:
        seed: Seed of all, at least 0.
        *key: Numbers that name the training among them, each at least 0.

    Returns:
        A seed from 0 to 2**31 - 1, which depends on the seed and on the key, including its order.
        Seeds of different keys are as good as independent (`numpy.random.SeedSequence`).
    """
    sequence = np.random.SeedSequence(seed, spawn_key=key)
    return int(sequence.generate_state(1)[0] >> 1)
