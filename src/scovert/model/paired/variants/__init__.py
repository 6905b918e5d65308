"""Designs kept for comparison."""
