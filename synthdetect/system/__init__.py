"""Files, processes, databases and the console: utilities that all other packages build on."""
