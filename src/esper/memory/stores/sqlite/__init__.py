"""The memory in one SQLite file, or in ``:memory:``."""
