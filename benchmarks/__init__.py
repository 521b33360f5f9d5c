"""How fast, against the baseline: ``make bench`` runs them all."""
