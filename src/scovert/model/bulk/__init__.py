"""BulkDeconvolution."""
