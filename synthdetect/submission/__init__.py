"""Run files of the MediaEval synthetic-images task: writing and checking them."""
