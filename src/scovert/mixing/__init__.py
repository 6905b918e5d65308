"""Deconvolution of mixtures: signatures, the joint fit, its uncertainty, RNA content."""
