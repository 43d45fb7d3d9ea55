"""The graph of notebooks: presets, cells, runs, tables."""
