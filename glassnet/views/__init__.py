"""Results as something to look at: charts, pictures, tables and payloads for the scenes."""
