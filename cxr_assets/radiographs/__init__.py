"""Films: where they come from, what their names say, how they are prepared, split and augmented."""
