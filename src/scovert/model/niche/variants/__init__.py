"""Variants of NicheVAE that are kept for comparison."""
