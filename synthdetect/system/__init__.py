"""Files, processes, databases and the console: what everything else stands on."""
