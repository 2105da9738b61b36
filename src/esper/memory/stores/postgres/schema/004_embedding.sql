-- A table called vector cannot stand beside the type of that name, which pgvector brings.
ALTER TABLE IF EXISTS vector RENAME TO embedding;
