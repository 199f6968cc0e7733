"""Inspection: opening a network. Takes any `nn.Module` and leaves it as it was."""

from glassnet.inspection.filters import Filters, filters
from glassnet.inspection.summary import LayerRow, Summary, summary

__all__ = ["Filters", "LayerRow", "Summary", "filters", "summary"]
