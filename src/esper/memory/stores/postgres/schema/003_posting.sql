CREATE TABLE posting (
    term TEXT COLLATE "C" NOT NULL,
    item BIGINT NOT NULL,
    title SMALLINT NOT NULL,
    context SMALLINT NOT NULL,
    detail SMALLINT NOT NULL,
    nearby SMALLINT NOT NULL,
    PRIMARY KEY (term, item)
);
INSERT INTO posting
    SELECT lexeme, item, cardinality(array_positions(weights, 'A')), cardinality(array_positions(weights, 'B')),
        cardinality(array_positions(weights, 'C')), cardinality(array_positions(weights, 'D'))
    FROM item_text, unnest(words);
CREATE INDEX posting_by_item ON posting (item);
ALTER TABLE item_text DROP COLUMN words;
ANALYZE posting;
