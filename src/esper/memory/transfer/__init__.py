"""Out of the memory and into it: our own JSON lines, and traces that others recorded. Never pickle."""
