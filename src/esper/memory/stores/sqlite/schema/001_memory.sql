CREATE TABLE episode (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    namespace TEXT NOT NULL,
    task TEXT NOT NULL,
    task_type TEXT NOT NULL,
    domain TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'completed', 'abandoned')),
    started INTEGER NOT NULL,
    ended INTEGER,
    num_steps INTEGER NOT NULL DEFAULT 0,
    tokens INTEGER NOT NULL DEFAULT 0,
    reward REAL,
    value REAL,
    score REAL,
    context BLOB NOT NULL,
    signatures BLOB,
    body BLOB
);
CREATE INDEX episode_by_type ON episode (task_type, domain, started DESC);
CREATE INDEX episode_by_namespace ON episode (namespace, started DESC);
CREATE INDEX episode_effort ON episode (namespace, task_type, domain, started DESC, num_steps, ended, tokens, reward)
    WHERE reward >= 0.5;
CREATE INDEX episode_open ON episode (started DESC) WHERE state = 'open';

CREATE TABLE step (
    episode INTEGER NOT NULL REFERENCES episode (key) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    tool TEXT NOT NULL,
    action TEXT NOT NULL,
    error TEXT,
    latency REAL,
    tokens INTEGER,
    at INTEGER NOT NULL,
    body BLOB,
    PRIMARY KEY (episode, number)
) WITHOUT ROWID;

CREATE TRIGGER step_of_open BEFORE INSERT ON step
WHEN (SELECT state FROM episode WHERE key = NEW.episode) <> 'open'
BEGIN
    SELECT RAISE(ABORT, 'the episode has ended');
END;

CREATE TABLE item (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('episode', 'note', 'pattern', 'heuristic', 'playbook')),
    pattern TEXT,
    signature INTEGER,
    namespace TEXT NOT NULL,
    task_type TEXT NOT NULL,
    domain TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('active', 'retired')),
    created INTEGER NOT NULL,
    score REAL,
    successes REAL NOT NULL,
    failures REAL NOT NULL,
    trust REAL NOT NULL,
    occurrences INTEGER NOT NULL,
    shown INTEGER NOT NULL DEFAULT 0,
    used INTEGER NOT NULL DEFAULT 0,
    touched INTEGER NOT NULL,
    last_used INTEGER,
    thread TEXT NOT NULL DEFAULT '',
    lesson BLOB NOT NULL
);
CREATE INDEX item_by_thread ON item (namespace, thread, key) WHERE thread <> '';
CREATE INDEX item_by_trust ON item (trust DESC, occurrences DESC) WHERE kind = 'pattern';
CREATE INDEX item_by_namespace ON item (namespace, kind, created DESC);
CREATE UNIQUE INDEX item_by_signature ON item (signature) WHERE signature IS NOT NULL;

CREATE VIRTUAL TABLE item_text USING fts5 (
    title, context, detail, nearby,
    content = '', contentless_delete = 1, tokenize = 'porter unicode61 remove_diacritics 2'
);

CREATE TABLE vector (
    item INTEGER PRIMARY KEY REFERENCES item (key) ON DELETE CASCADE,
    model TEXT NOT NULL,
    vector BLOB NOT NULL
);
CREATE INDEX vector_by_model ON vector (model);

CREATE TABLE sighting (
    signature INTEGER NOT NULL,
    episode INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    reward REAL NOT NULL,
    PRIMARY KEY (signature, episode)
) WITHOUT ROWID;

CREATE TABLE support (
    signature INTEGER PRIMARY KEY,
    seen INTEGER NOT NULL,
    won REAL NOT NULL
);

CREATE TABLE habit (
    namespace TEXT NOT NULL,
    scope TEXT NOT NULL,
    counts BLOB NOT NULL,
    PRIMARY KEY (namespace, scope)
) WITHOUT ROWID;

CREATE TABLE exposure (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    namespace TEXT NOT NULL,
    query TEXT NOT NULL,
    episode INTEGER REFERENCES episode (key) ON DELETE CASCADE,
    at INTEGER NOT NULL
);
CREATE INDEX exposure_by_episode ON exposure (episode) WHERE episode IS NOT NULL;

CREATE TABLE exposed (
    exposure INTEGER NOT NULL REFERENCES exposure (key) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    item INTEGER NOT NULL REFERENCES item (key) ON DELETE CASCADE,
    used_at INTEGER,
    reward REAL,
    PRIMARY KEY (exposure, place)
) WITHOUT ROWID;
CREATE INDEX exposed_by_item ON exposed (item);

CREATE TABLE tag (
    name TEXT NOT NULL,
    subject TEXT NOT NULL,
    PRIMARY KEY (name, subject)
) WITHOUT ROWID;
CREATE INDEX tag_by_subject ON tag (subject);

CREATE TABLE relation (
    type TEXT NOT NULL,
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (source, type, target)
) WITHOUT ROWID;
CREATE INDEX relation_by_target ON relation (target, type);

CREATE TABLE checkpoint (
    id TEXT PRIMARY KEY,
    episode INTEGER NOT NULL REFERENCES episode (key) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    note TEXT NOT NULL,
    created INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX checkpoint_by_episode ON checkpoint (episode, created);

CREATE TABLE namespace (
    name TEXT PRIMARY KEY,
    version INTEGER NOT NULL
) WITHOUT ROWID;
