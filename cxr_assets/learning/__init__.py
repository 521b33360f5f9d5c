"""Networks, Lightning modules, the frozen probe, training, resuming and export."""
