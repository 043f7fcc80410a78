"""Many trainings compared fairly: built on synthdetect, which does not know of it."""
