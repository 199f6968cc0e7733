"""Data: examples in memory, standard sets, and the preprocessing contract."""
