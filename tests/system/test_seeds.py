"""Tests of derived seeds."""

from itertools import product

from synthdetect.system.seeds import derive_seed


def test_every_key_has_a_seed_of_its_own_that_fits_the_options() -> None:
    seeds = {derive_seed(42, *key) for key in product(range(30), range(30))}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_seed_is_always_the_same_and_depends_on_seed_and_key() -> None:
    assert derive_seed(42, 1, 2) == derive_seed(42, 1, 2)
    assert len({derive_seed(42, 1, 2), derive_seed(42, 2, 1), derive_seed(43, 1, 2)}) == 3
