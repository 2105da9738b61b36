"""Where the memory rests: one Protocol, one folder or file a database."""
