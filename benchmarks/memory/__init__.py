"""What the episodic memory is worth, on public data that are read from a folder and never kept here."""
