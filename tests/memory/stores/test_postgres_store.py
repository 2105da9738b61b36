"""What PostgreSQL alone does: several writers at once, servers that go away, tables that are none of ours."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

psycopg = pytest.importorskip("psycopg")

from esper.errors import ConfigurationError, MemoryStoreError  # noqa: E402
from esper.memory import Memory  # noqa: E402
from esper.memory.recall.embeddings import CallableEmbedder  # noqa: E402
from esper.memory.records import Step  # noqa: E402
from esper.memory.stores.opening import open_store  # noqa: E402
from esper.memory.stores.postgres import migrations, neighbours  # noqa: E402
from esper.memory.stores.postgres.store import PostgresStore  # noqa: E402
from esper.memory.stores.sqlite.store import SqliteStore  # noqa: E402
from esper.memory.stores.store import Filter, SearchText, Sighting  # noqa: E402
from esper.testing.memory_store import episode, note  # noqa: E402

TEXTS = (
    "the tests were failing at night, Crème brûlée and 3.14 of it",
    "bake a cake; a cake is a cake is a CAKE",
    "https://example.com/some_file.py fails with ERR-404 at night",
    "night_shift: the cake was never tested",
    "a very long story about a baker who tests ovens, none of which ever failed him " * 4,
)


@pytest.fixture
def store(postgres_url):
    opened = PostgresStore(postgres_url)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    "words", [["cake"], ["test", "night"], ["creme", "brulee"], ["file", "py", "404", "fail"]]
)
def test_items_get_the_same_relevance_as_in_sqlite(store, words):
    other = SqliteStore(":memory:")
    for one in (store, other):
        for number, text in enumerate(TEXTS):
            item, _ = note(number, text)
            one.items.add([(item, SearchText(title=text, detail=text[5:], context="cake", nearby=text[-9:]))])
    mine, theirs = (
        {hit.item.id: hit.relevance for hit in one.items.search(words, Filter(), 9)} for one in (store, other)
    )
    other.close()
    assert list(mine) == list(theirs)
    assert mine == pytest.approx(theirs, rel=1e-4)


def test_words_that_were_replaced_or_forgotten_leave_no_trace_in_the_statistics(store):
    store.items.add([note(1, "a cake"), note(2, "some bread and more")])
    item = store.items.get(["note-0001"])["note-0001"]
    store.items.rewrite(item, SearchText(title="soup"))
    store.items.forget(["note-0002"])
    assert store.connection.rows("SELECT num_items, num_words FROM corpus") == [(1, 1)]


def test_the_character_0_becomes_a_visible_one(store):
    store.episodes.add([episode(1, task="a\0b", tags=("t\0",))])
    found = store.episodes.get(["episode-0001"])["episode-0001"]
    assert (found.task, found.tags) == ("a␀b", ("t␀",))


def test_threads_append_at_the_same_time(store):
    store.episodes.add([episode(number) for number in range(4)])
    together = threading.Barrier(4, timeout=30)

    def append(number):
        with store.connection.appending():
            store.episodes.add_steps([(f"episode-{number:04d}", Step(number=1))])
            together.wait()  # all four hold their transactions open here

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(append, range(4)))
    assert [store.episodes.last_number(f"episode-{number:04d}") for number in range(4)] == [1] * 4


def test_transactions_that_read_before_they_write_lose_nothing(store, postgres_url):
    store.touch("counted")
    stores = [store, PostgresStore(postgres_url)]

    def count(one):
        for _ in range(25):
            with one.transaction():
                version = one.stamp("counted")
                one.connection.write(
                    "UPDATE namespace SET version = ? WHERE name = 'counted'", (version + 1,)
                )

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(count, stores * 2))
    stores[1].close()
    assert store.stamp("counted") == 1 + 100


def test_an_error_that_was_passed_over_inside_a_transaction_stores_nothing_and_says_so(store):
    def careless():
        with store.transaction():
            store.episodes.add([episode(1)])
            with pytest.raises(MemoryStoreError):
                store.connection.rows("SELECT nonsense")

    with pytest.raises(MemoryStoreError, match="nothing was stored"):
        careless()
    assert store.episodes.find(Filter()) == []


def test_a_connection_that_the_server_ended_is_replaced(store):
    (pid,) = store.connection.row("SELECT pg_backend_pid()")
    other = psycopg.connect(store.connection._url, autocommit=True)
    other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    other.close()
    store.episodes.add([episode(1)])
    assert len(store.episodes.find(Filter())) == 1


def test_a_closed_store_says_that_it_is_closed(store):
    store.close()
    with pytest.raises(MemoryStoreError, match="closed"):
        store.counts()


def test_a_server_that_is_not_there_is_named_without_its_password():
    with pytest.raises(MemoryStoreError) as told:
        open_store("postgresql://me:hush@127.0.0.1:1/memory")
    assert "postgresql://127.0.0.1/memory" in str(told.value)
    assert "hush" not in str(told.value)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("CREATE TABLE episode (x INT)", "another program"),
        ("CREATE TABLE memory_schema (version INT); INSERT INTO memory_schema VALUES (99)", "newer"),
    ],
)
def test_tables_that_are_not_ours_are_refused_and_left_alone(postgres_url, sql, message):
    with psycopg.connect(postgres_url, autocommit=True) as server:
        server.execute(sql)
    with pytest.raises(MemoryStoreError, match=message):
        PostgresStore(postgres_url)


def test_a_migration_that_fails_leaves_nothing_behind_and_a_good_one_keeps_what_was_there(
    store, postgres_url, monkeypatch
):
    store.episodes.add([episode(1)])
    scripts = migrations.scripts()
    monkeypatch.setattr(
        migrations, "scripts", lambda: (*scripts, "CREATE TABLE later (x INT); SELECT nonsense")
    )
    with pytest.raises(MemoryStoreError, match="nonsense"):
        PostgresStore(postgres_url)
    assert store.connection.row("SELECT to_regclass('later') IS NULL") == (True,)
    monkeypatch.setattr(migrations, "scripts", lambda: (*scripts, "CREATE TABLE later (x INT)"))
    PostgresStore(postgres_url).close()
    assert len(store.episodes.find(Filter())) == 1
    monkeypatch.undo()
    with pytest.raises(MemoryStoreError, match="newer"):
        PostgresStore(postgres_url)


def test_evidence_and_words_of_version_1_are_taken_over(postgres_url, monkeypatch):
    scripts = migrations.scripts()
    monkeypatch.setattr(migrations, "scripts", lambda: scripts[:1])
    store = PostgresStore(postgres_url)
    store.episodes.add([episode(1)])
    store.connection.script(
        "UPDATE episode SET signatures = '\\x92'; INSERT INTO sighting SELECT -7, key, 1, 3, 0.7 FROM episode; "
        "INSERT INTO sighting SELECT 8, key, 2, 2, 1 FROM episode; "
        "INSERT INTO item (id, kind, namespace, task_type, domain, state, created, successes, failures, trust, "
        "occurrences, touched, lesson) VALUES ('n', 'note', 'default', '', '', 'active', 1, 0, 0, 0, 0, 1, '\\x80'); "
        "UPDATE item SET lesson = '\\x81a474657874a463616b65'; "
        "INSERT INTO item_text SELECT key, setweight(to_tsvector('esper', 'two cakes'), 'A'), 2 FROM item; "
        "UPDATE corpus SET num_items = 1, num_words = 2; ALTER TABLE embedding RENAME TO vector"
    )
    store.connection.script("INSERT INTO vector SELECT key, 'm', '\\x0000803f' FROM item")
    store.close()
    monkeypatch.undo()
    store = PostgresStore(postgres_url)
    assert store.sightings.in_episode("episode-0001") == [Sighting(-7, 1, 3, 0.7), Sighting(8, 2, 2, 1.0)]
    assert store.sightings.evidence(-7, 9)[0].reward == 0.7
    assert [hit.item.lesson.text for hit in store.items.search(["cake"], Filter(), 9)] == ["cake"]
    assert [one.id for one in store.items.vectors("m")] == ["n"]
    store.items.forget(["n"])
    assert store.items.frequencies(["cake"]) == {"cake": 0}
    assert store.connection.row("SELECT num_items, num_words FROM corpus") == (0, 0)
    store.episodes.forget(["episode-0001"])
    assert store.sightings.counts([-7, 8]) == {}
    store.close()


def test_several_processes_may_open_an_empty_database_at_once(postgres_url):
    with ThreadPoolExecutor(4) as threads:
        stores = list(threads.map(PostgresStore, [postgres_url] * 4))
    for one in stores:
        assert one.check() == []
        one.close()


def test_a_memory_learns_and_recalls_there_as_anywhere(postgres_url, clock):
    with Memory(postgres_url, clock=clock) as memory:
        for _ in range(3):
            with memory.episode("fix the flaky test", domain="ci") as told:
                told.step("pytest", "run", error="2 failed")
                told.step("editor", "sort the keys")
                told.step("pytest", "run")
        assert memory.recall("a flaky test").answers[0].text
        assert memory.patterns()
        assert memory.store.check() == []


def test_a_url_of_another_kind_is_refused():
    with pytest.raises(ConfigurationError, match="mysql"):
        open_store("mysql://somewhere/memory")


@pytest.fixture
def with_pgvector(postgres_url):
    """The URL of a memory whose vectors the server compares."""
    with psycopg.connect(postgres_url, autocommit=True) as server:
        if not server.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'").fetchone():
            pytest.skip("the server has no pgvector")
        server.execute("CREATE EXTENSION IF NOT EXISTS vector")
    return postgres_url.replace("postgresql://", "postgresql+pgvector://", 1)


def test_a_server_without_pgvector_says_what_to_do(postgres_url, monkeypatch):
    monkeypatch.setattr(neighbours, "_AVAILABLE", "SELECT 1 WHERE FALSE")
    with pytest.raises(MemoryStoreError, match="no pgvector; install it there, or give postgresql://"):
        open_store(postgres_url.replace("postgresql://", "postgresql+pgvector://", 1))


def test_pgvector_finds_what_this_process_finds(with_pgvector, clock):
    embedder = CallableEmbedder(_by_letters, name="letters", dimension=26)
    texts = ("a cake", "an ape", "some bread", "a cake with bread", "cakes and ale")
    plain = with_pgvector.replace("+pgvector", "", 1)
    with Memory(plain, clock=clock, embedder=embedder) as memory:
        ids = [memory.note(text).id for text in texts]
        memory.note("a cake elsewhere", namespace="other")
        mine = memory.recall("cake and bread", k=9)
    with Memory(with_pgvector, clock=clock, embedder=embedder) as memory:
        theirs = memory.recall("cake and bread", k=9)
        assert theirs.ids == mine.ids
        assert [one.parts for one in theirs] == [pytest.approx(one.parts, abs=1e-6) for one in mine]
        ids.append(memory.note("bread and cake").id)
        assert memory.recall("cake and bread!", k=9).ids[0] == ids[-1]
        memory.store.items.forget(ids[-1:])
        assert memory.recall("cake and bread?", k=9).ids == mine.ids


def test_vectors_of_another_model_take_the_place_of_the_old_ones(with_pgvector, clock):
    def backwards(texts):
        return _by_letters(texts)[:, ::-1]

    first = CallableEmbedder(_by_letters, name="letters", dimension=26)
    second = CallableEmbedder(backwards, name="backwards", dimension=26)
    with Memory(with_pgvector, clock=clock, embedder=first) as memory:
        notes = [memory.note(text).id for text in ("aaa", "zzz")]
        assert memory.recall("a", k=1).ids == (notes[0],)
    with Memory(with_pgvector, clock=clock, embedder=second) as memory:
        assert memory.embed_again() == 2
        assert memory.recall("a", k=1).ids == (notes[0],)
        assert memory.store.connection.rows("SELECT DISTINCT model FROM neighbour") == [("backwards [26]",)]


def _by_letters(texts):
    rows = np.full((len(texts), 26), 1e-3)
    for row, text in zip(rows, texts, strict=True):
        for letter in text.lower():
            if letter.isascii() and letter.isalpha():
                row[ord(letter) - ord("a")] += 1.0
    return rows
