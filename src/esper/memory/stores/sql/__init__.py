"""The SQL that SQLite and PostgreSQL both understand: written once, run on a connection of either."""
