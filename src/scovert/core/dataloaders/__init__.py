"""Cells as minibatches."""
