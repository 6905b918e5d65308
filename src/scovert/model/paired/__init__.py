"""PairedVAE."""
