"""NicheVAE: what surrounds a cell."""
