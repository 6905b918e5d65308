"""BulkDeconvolution, and what it returns."""

from scovert.model._bulk._expression import TypeExpression
from scovert.model._bulk._model import BulkDeconvolution
from scovert.model._bulk._result import BulkResult

__all__ = ["BulkDeconvolution", "BulkResult", "TypeExpression"]
