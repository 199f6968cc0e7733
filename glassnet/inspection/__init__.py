"""Inspection: opening a network. Takes any `nn.Module` and leaves it as it was.

`glassnet` re-exports what there is to use. This package does not: a training needs one of these modules, and importing
all of them takes as long as an epoch of a small network.
"""
