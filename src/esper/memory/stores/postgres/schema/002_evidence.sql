ALTER TABLE episode RENAME COLUMN signatures TO evidence;
UPDATE episode SET evidence = told FROM (
    SELECT episode AS seen_in,
        convert_to(json_agg(json_build_array(signature, first, last, reward))::text, 'UTF8') AS told
    FROM sighting GROUP BY episode
) AS before WHERE key = seen_in;

ALTER TABLE sighting DROP COLUMN first, DROP COLUMN last, DROP COLUMN reward;
