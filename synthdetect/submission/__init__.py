"""Run files of the MediaEval synthetic-images task."""
