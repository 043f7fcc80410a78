"""Fair comparisons of training strategies: an extension of synthdetect, which does not import it.

`synthdetect sweep` tunes the baseline and every strategy with the same number of trials, trains
each with its best values on several folds and seeds (the final fits), and judges the differences.
"""
