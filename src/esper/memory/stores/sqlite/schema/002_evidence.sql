ALTER TABLE episode RENAME COLUMN signatures TO evidence;
UPDATE episode SET evidence = told FROM (
    SELECT episode AS seen_in,
        CAST(json_group_array(json_array(signature, first, last, json(printf('%!.17g', reward)))) AS BLOB) AS told
    FROM sighting GROUP BY episode
) WHERE key = seen_in;

CREATE VIRTUAL TABLE sighted USING fts5 (
    signatures, content = '', contentless_delete = 1, detail = none, tokenize = 'ascii'
);
INSERT INTO sighted (rowid, signatures)
    SELECT episode, group_concat(printf('s%x', signature), ' ') FROM sighting GROUP BY episode ORDER BY episode;
DROP TABLE sighting;
