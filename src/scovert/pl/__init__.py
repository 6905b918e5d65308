"""Figures."""

__all__ = []
