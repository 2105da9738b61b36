"""The memory in PostgreSQL: several machines may hold one."""
