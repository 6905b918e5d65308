"""LatentConfounder."""
