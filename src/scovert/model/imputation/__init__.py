"""MaskedImputation: counts of genes that a dataset did not measure."""
