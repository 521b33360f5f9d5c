"""How fast, against the plain way: ``make bench`` runs them all."""
