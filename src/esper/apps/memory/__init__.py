"""The memory on a command line and behind the Model Context Protocol."""
