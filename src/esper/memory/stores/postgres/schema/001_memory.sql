CREATE TEXT SEARCH DICTIONARY esper_stem (TEMPLATE = pg_catalog.snowball, Language = porter);
CREATE TEXT SEARCH CONFIGURATION esper (PARSER = pg_catalog.default);
ALTER TEXT SEARCH CONFIGURATION esper ADD MAPPING FOR
    asciiword, word, numword, asciihword, hword, numhword, hword_asciipart, hword_part, hword_numpart,
    int, uint, float, sfloat, version WITH esper_stem;

CREATE TABLE episode (
    key BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT COLLATE "C" NOT NULL UNIQUE,
    namespace TEXT COLLATE "C" NOT NULL,
    task TEXT NOT NULL,
    task_type TEXT COLLATE "C" NOT NULL,
    domain TEXT COLLATE "C" NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'completed', 'abandoned')),
    started BIGINT NOT NULL,
    ended BIGINT,
    num_steps BIGINT NOT NULL DEFAULT 0,
    tokens BIGINT NOT NULL DEFAULT 0,
    reward DOUBLE PRECISION,
    value DOUBLE PRECISION,
    score DOUBLE PRECISION,
    context BYTEA NOT NULL,
    signatures BYTEA,
    body BYTEA
);
CREATE INDEX episode_by_type ON episode (task_type, domain, started DESC);
CREATE INDEX episode_by_namespace ON episode (namespace, started DESC);
CREATE INDEX episode_effort ON episode (namespace, task_type, domain, started DESC)
    INCLUDE (num_steps, ended, tokens, reward) WHERE reward >= 0.5;
CREATE INDEX episode_open ON episode (started DESC) WHERE state = 'open';

CREATE TABLE step (
    episode BIGINT NOT NULL REFERENCES episode (key) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    tool TEXT NOT NULL,
    action TEXT NOT NULL,
    error TEXT,
    latency DOUBLE PRECISION,
    tokens BIGINT,
    at BIGINT NOT NULL,
    body BYTEA,
    PRIMARY KEY (episode, number)
);

CREATE FUNCTION refuse_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the episode has ended' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE FUNCTION has_ended(key BIGINT) RETURNS BOOLEAN LANGUAGE sql STABLE AS
    'SELECT EXISTS (SELECT FROM episode WHERE episode.key = $1 AND state <> ''open'')';
CREATE TRIGGER step_of_open BEFORE INSERT ON step
FOR EACH ROW WHEN (has_ended(NEW.episode)) EXECUTE FUNCTION refuse_step();

CREATE TABLE item (
    key BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT COLLATE "C" NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('episode', 'note', 'pattern', 'heuristic', 'playbook')),
    pattern TEXT,
    signature BIGINT UNIQUE,
    namespace TEXT COLLATE "C" NOT NULL,
    task_type TEXT COLLATE "C" NOT NULL,
    domain TEXT COLLATE "C" NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('active', 'retired')),
    created BIGINT NOT NULL,
    score DOUBLE PRECISION,
    successes DOUBLE PRECISION NOT NULL,
    failures DOUBLE PRECISION NOT NULL,
    trust DOUBLE PRECISION NOT NULL,
    occurrences BIGINT NOT NULL,
    shown BIGINT NOT NULL DEFAULT 0,
    used BIGINT NOT NULL DEFAULT 0,
    touched BIGINT NOT NULL,
    last_used BIGINT,
    thread TEXT COLLATE "C" NOT NULL DEFAULT '',
    lesson BYTEA NOT NULL
);
CREATE INDEX item_by_thread ON item (namespace, thread, key) WHERE thread <> '';
CREATE INDEX item_by_trust ON item (trust DESC, occurrences DESC) WHERE kind = 'pattern';
CREATE INDEX item_by_namespace ON item (namespace, kind, created DESC);

CREATE TABLE item_text (
    item BIGINT PRIMARY KEY REFERENCES item (key) ON DELETE CASCADE,
    words TSVECTOR NOT NULL,
    length BIGINT NOT NULL
);
CREATE INDEX item_text_words ON item_text USING gin (words);

CREATE TABLE corpus (
    single BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (single),
    num_items BIGINT NOT NULL,
    num_words BIGINT NOT NULL
);
INSERT INTO corpus (num_items, num_words) VALUES (0, 0);

CREATE TABLE embedding (
    item BIGINT PRIMARY KEY REFERENCES item (key) ON DELETE CASCADE,
    model TEXT COLLATE "C" NOT NULL,
    vector BYTEA NOT NULL
);
CREATE INDEX embedding_by_model ON embedding (model);

CREATE TABLE sighting (
    signature BIGINT NOT NULL,
    episode BIGINT NOT NULL,
    first BIGINT NOT NULL,
    last BIGINT NOT NULL,
    reward DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (signature, episode)
);

CREATE TABLE support (
    signature BIGINT PRIMARY KEY,
    seen BIGINT NOT NULL,
    won DOUBLE PRECISION NOT NULL
);

CREATE TABLE habit (
    namespace TEXT COLLATE "C" NOT NULL,
    scope TEXT COLLATE "C" NOT NULL,
    counts BYTEA NOT NULL,
    PRIMARY KEY (namespace, scope)
);

CREATE TABLE exposure (
    key BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT COLLATE "C" NOT NULL UNIQUE,
    namespace TEXT COLLATE "C" NOT NULL,
    query TEXT NOT NULL,
    episode BIGINT REFERENCES episode (key) ON DELETE CASCADE,
    at BIGINT NOT NULL
);
CREATE INDEX exposure_by_episode ON exposure (episode) WHERE episode IS NOT NULL;

CREATE TABLE exposed (
    exposure BIGINT NOT NULL REFERENCES exposure (key) ON DELETE CASCADE,
    place BIGINT NOT NULL,
    item BIGINT NOT NULL REFERENCES item (key) ON DELETE CASCADE,
    used_at BIGINT,
    reward DOUBLE PRECISION,
    PRIMARY KEY (exposure, place)
);
CREATE INDEX exposed_by_item ON exposed (item);

CREATE TABLE tag (
    name TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (name, subject)
);
CREATE INDEX tag_by_subject ON tag (subject);

CREATE TABLE relation (
    type TEXT COLLATE "C" NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    target TEXT COLLATE "C" NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (source, type, target)
);
CREATE INDEX relation_by_target ON relation (target, type);

CREATE TABLE checkpoint (
    id TEXT COLLATE "C" PRIMARY KEY,
    episode BIGINT NOT NULL REFERENCES episode (key) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    note TEXT NOT NULL,
    created BIGINT NOT NULL
);
CREATE INDEX checkpoint_by_episode ON checkpoint (episode, created);

CREATE TABLE namespace (
    name TEXT COLLATE "C" PRIMARY KEY,
    version BIGINT NOT NULL
);
