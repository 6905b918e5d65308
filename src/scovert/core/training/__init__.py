"""Training with best state, checkpoint, charts."""
