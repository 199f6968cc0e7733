"""Data: examples in memory, standard sets, and the preprocessing contract."""

from glassnet.data.examples import Dataset, ExampleSet, Framing
from glassnet.data.preprocessing import Preprocessing, make_preprocessing
from glassnet.data.sources import list_datasets, load_data

__all__ = ["Dataset", "ExampleSet", "Framing", "Preprocessing", "list_datasets", "load_data", "make_preprocessing"]
