"""Growth in the loops of other libraries, one file a library; none is loaded before its file is imported."""
