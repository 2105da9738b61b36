ALTER TABLE vector RENAME TO embedding;
