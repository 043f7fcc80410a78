"""The same detector behind other software's servers, for `benchmarks.load`."""
