"""How options are declared, resolved and recorded, and how registries name their entries."""
