"""Inspection: opening a network. Takes any `nn.Module` and leaves it as it was."""

from glassnet.inspection.filters import Filters, filters
from glassnet.inspection.summary import LayerRow, Summary, summary
from glassnet.inspection.tracing import Step, Trace, Value, trace

__all__ = ["Filters", "LayerRow", "Step", "Summary", "Trace", "Value", "filters", "summary", "trace"]
