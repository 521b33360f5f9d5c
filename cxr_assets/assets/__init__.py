"""The six assets of the graph, one module each."""
