"""Solvers of the latent confounders."""
