"""The loop closes: what was used earns or loses trust by how it ended, and ranks accordingly the next time."""

from __future__ import annotations

QUERY = "database connection refused"


def test_over_twenty_episodes_what_helps_rises_and_what_harms_sinks(memory):
    good = memory.note(f"{QUERY}: restart the database server first")
    bad = memory.note(f"{QUERY}: retry")
    assert memory.recall(QUERY)[0].id == bad.id
    chosen = [_rely_on_the_best(memory, good.id, bad.id) for _ in range(20)]
    trust = {answer.id: answer.trust for answer in memory.recall(QUERY, k=50)}
    assert chosen[0] == bad.id
    assert chosen[-12:] == [good.id] * 12
    assert trust[good.id].lower > 0.8
    assert bad.id not in trust or trust[bad.id].upper < trust[good.id].lower
    assert next(id for id in memory.recall(QUERY, k=50).ids if id in (good.id, bad.id)) == good.id


def test_trust_moves_with_every_outcome_and_the_rank_with_trust(memory):
    note = memory.note(QUERY)
    seen = []
    for reward in (1.0, 1.0, 0.0, 0.0, 1.0):
        before = memory.recall(QUERY)[0]
        memory.feedback(memory.recall(QUERY), [note.id], reward=reward)
        after = memory.recall(QUERY)[0]
        seen.append((after.trust.mean > before.trust.mean, after.total > before.total))
    assert seen == [(True, True), (True, True), (False, False), (False, False), (True, True)]


def _rely_on_the_best(memory, *notes):
    """One episode: take the best of the notes, and succeed only if it says to restart."""
    with memory.episode("run the nightly job", task_type="ops") as episode:
        episode.step("job", "run", error="connection refused by the database")
        answer = next(answer for answer in episode.recall(QUERY, k=20) if answer.id in notes)
        episode.used(answer.id)
        episode.step("shell", answer.text)
        if "restart" in answer.text:
            episode.succeed("the job ran")
        else:
            episode.fail("still refused")
    return answer.id
