"""The memory as its users see it."""

from __future__ import annotations

import pytest

from esper.errors import ConfigurationError, EpisodeError, MemoryStoreError
from esper.memory import Memory, Options
from esper.memory.records import Outcome, Step
from esper.memory.stores.store import Filter

WAY = ("sequence", "pytest: run the suite", "editor: freeze the clock", "pytest: run the suite")


def fix(memory, *, works=True, task="fix the flaky test", **fields):
    with memory.episode(task, **({"domain": "ci", "language": "python"} | fields)) as episode:
        episode.step("pytest", "run the suite", error="2 failed")
        episode.step("editor", "freeze the clock", result="saved")
        episode.step("pytest", "run the suite", error=None if works else "2 failed")
        if works:
            episode.succeed("tests pass")
        else:
            episode.fail("still red")
    return episode.episode


def kinds(memory):
    return {(item.pattern, *item.lesson.actions): item for item in memory.patterns()}


def test_an_episode_is_there_with_steps_score_credit_and_reflection(memory):
    told = fix(memory, tags=("flaky",))
    found = memory.get(told.id)
    assert found == told
    assert [step.tool for step in found.steps] == ["pytest", "editor", "pytest"]
    assert found.outcome == Outcome(ending="success", reason="tests pass")
    assert len(found.credit) == 3
    assert found.score.total > 0.8
    assert "editor: freeze the clock cured 2 failed" in found.reflection.worked
    assert found.reflection.advice == ("next time at once: editor: freeze the clock",)
    assert found.tags == ("flaky",)


def test_what_is_closed_and_opened_again_is_still_there(tmp_path):
    with Memory(tmp_path / "deep" / "memory.db") as memory:
        told = fix(memory)
    with Memory(f"sqlite:///{tmp_path / 'deep' / 'memory.db'}") as memory:
        assert memory.get(told.id) == told


def test_the_default_place_is_the_projects_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPER_HOME", str(tmp_path / "home"))
    with Memory() as memory:
        fix(memory)
    assert (tmp_path / "home" / "memory.db").is_file()


def test_a_url_of_another_kind_says_what_to_give():
    with pytest.raises(ConfigurationError, match="sqlite:///"):
        Memory("mongodb://user:secret@host/db")


def test_a_receipt_says_how_safe_a_step_is(tmp_path):
    options = {"process": Options(), "power": Options(durability="power"), "queued": Options(max_batch=100)}
    for word, told in options.items():
        with Memory(tmp_path / f"{word}.db", options=told) as memory:
            episode = memory.episode("task")
            receipt = episode.step("tool")
            assert (receipt.number, receipt.durability) == (1, word)
            assert len(memory.store.episodes.get([episode.id])) == (0 if word == "queued" else 1)
            memory.flush()
            assert memory.store.episodes.last_number(episode.id) == 1


def test_a_full_batch_is_stored_and_the_receipt_says_so(tmp_path):
    with Memory(tmp_path / "memory.db", options=Options(max_batch=3, flush_interval=3600)) as memory:
        episode = memory.episode("task")
        assert [episode.step("tool").durability for _ in range(2)] == ["queued", "process"]
        assert memory.store.episodes.last_number(episode.id) == 2


def test_queued_steps_are_stored_on_close(tmp_path):
    with Memory(tmp_path / "memory.db", options=Options(max_batch=1000)) as memory:
        episode = memory.episode("task")
        episode.step("tool", parameters={"x": [1]})
    with Memory(tmp_path / "memory.db") as memory:
        assert memory.get(episode.id).steps[0].parameters == {"x": [1]}


def test_what_the_caller_changes_later_does_not_reach_a_queued_step(tmp_path):
    with Memory(tmp_path / "memory.db", options=Options(max_batch=1000)) as memory:
        episode, parameters = memory.episode("task"), {"x": 1}
        episode.step("tool", parameters=parameters)
        parameters["x"] = 2
        assert memory.get(episode.id).steps[0].parameters == {"x": 1}


def test_an_exception_fails_the_episode_and_is_raised_again(memory):
    episode = memory.episode("divide")
    with pytest.raises(ZeroDivisionError), episode:
        _ = 1 / 0
    assert memory.get(episode.id).outcome == Outcome(
        ending="failure", reason="ZeroDivisionError: division by zero"
    )


def test_an_interrupt_abandons_the_episode_and_nothing_is_learned(memory):
    with pytest.raises(KeyboardInterrupt), memory.episode("wait") as episode:
        raise KeyboardInterrupt
    assert memory.get(episode.id).state == "abandoned"
    assert not memory.recall("wait").relevant


def test_an_ended_episode_takes_no_step_and_no_second_end(memory):
    episode = memory.episode("task")
    episode.succeed()
    for late in (lambda: episode.step("tool"), episode.succeed, lambda: memory.resume(episode.id)):
        with pytest.raises(EpisodeError):
            late()


def test_a_share_outside_its_range_is_refused_and_the_episode_stays_open(memory):
    episode = memory.episode("task")
    with pytest.raises(EpisodeError, match="from 0 to 1"):
        episode.partial(1.5)
    assert memory.get(episode.id).state == "open"


def test_a_recorded_function_is_an_episode_a_call(memory):
    @memory.record(domain="maths")
    def divide(dividend, divisor):
        """Divides."""
        return dividend / divisor

    assert divide(6, divisor=3) == 2
    with pytest.raises(ZeroDivisionError):
        divide(6, 0)
    failed, passed = (memory.get(one.id) for one in memory.episodes())
    assert passed.steps[0].parameters == {"dividend": 6, "divisor": 3}
    assert (passed.outcome.ending, failed.outcome.ending) == ("success", "failure")
    assert failed.steps[0].error.startswith("ZeroDivisionError")
    assert divide.__doc__ == "Divides."


def test_an_open_episode_goes_on_in_another_process_with_its_context(memory, tmp_path):
    episode = memory.episode("task", domain="ci", depth=3)
    episode.step("one")
    with Memory(tmp_path / "memory.db") as other:
        again = other.resume(episode.id)
        assert again.step("two").number == 2
        again.succeed()
    found = memory.get(episode.id)
    assert [step.tool for step in found.steps] == ["one", "two"]
    assert found.context == {"depth": 3}


def test_all_five_kinds_of_pattern_come_from_two_episodes_and_none_from_one(memory):
    def one():
        with memory.episode("fix it", domain="ci", language="python") as episode:
            episode.step("shell", "rm build", error="permission denied")
            episode.step("pytest", "run", error="2 failed")
            episode.step("editor", "freeze")
            episode.step("pytest", "run")
            episode.succeed()

    one()
    assert memory.patterns() == []
    one()
    found = kinds(memory)
    assert {kind for kind, *_ in found} == {"sequence", "decision", "recovery", "approach", "antipattern"}
    assert {item.tally.occurrences for item in found.values()} == {2}
    assert ("recovery", "editor: freeze") in found
    assert ("antipattern", "shell: rm build") in found


def test_a_third_episode_merges_into_the_patterns_and_adds_its_evidence(memory):
    told = [fix(memory), fix(memory, works=True), fix(memory, works=False)]
    sequence = kinds(memory)[WAY]
    assert (sequence.tally.occurrences, sequence.tally.successes, sequence.tally.failures) == (3, 2.0, 1.0)
    evidence = memory.store.sightings.evidence(sequence.signature, 9)
    assert [seen.episode for seen in evidence] == [one.id for one in reversed(told)]
    assert (evidence[0].first, evidence[0].last) == (1, 3)


def test_patterns_of_other_namespaces_do_not_mix(memory):
    fix(memory, namespace="a")
    fix(memory, namespace="b")
    assert memory.patterns(Filter()) == []


def test_recall_says_why_and_nothing_relevant_is_an_answer(memory):
    fix(memory)
    found = memory.recall("a flaky test")
    assert found[0].text == "fix the flaky test"
    assert found[0].total == pytest.approx(sum(found[0].parts.values()))
    assert "text +1.00" in found.explain()
    nothing = memory.recall("zebra")
    assert not nothing.relevant
    assert "nothing relevant" in nothing.explain()


def test_a_repeated_question_is_answered_from_the_cache_until_something_is_learned(memory, tmp_path):
    fix(memory)
    assert [memory.recall("flaky").cached for _ in range(3)] == [False, True, True]
    assert memory.cache_report().hit_rate == pytest.approx(2 / 3)
    with Memory(tmp_path / "memory.db") as other:
        other.note("a flaky note")
    assert not memory.recall("flaky").cached
    assert len(memory.recall("flaky")) == 2


def test_looking_and_noting_a_use_change_no_answer(memory):
    fix(memory)
    found = memory.recall("flaky")
    memory.flush()
    memory.feedback(found, [found[0].id])
    assert memory.recall("flaky").cached
    memory.feedback(found, [found[0].id], reward=1.0)
    assert not memory.recall("flaky").cached


def test_only_what_was_shown_can_be_used(memory):
    note = memory.note("cake")
    recalled = memory.recall("bread")
    with pytest.raises(EpisodeError, match="was not shown"):
        memory.feedback(recalled, [note.id], reward=1.0)
    with memory.episode("bake") as episode, pytest.raises(EpisodeError, match="was not recalled"):
        episode.used(note.id)


def test_context_keeps_its_budget_and_tells_lessons_patterns_and_pitfalls(memory):
    for works in (True, True, False):
        fix(memory, works=works)
    with memory.episode("fix the flaky test", domain="ci") as episode:
        episode.step("shell", "delete the test", error="not allowed")
        episode.fail()
    told = memory.context("flaky test", budget_tokens=300)
    assert "next time at once: editor: freeze the clock" in told.text
    assert "shell: delete the test: not allowed" in told.text
    assert "What to avoid" in told.text
    for budget in (0, 10, 40, 100):
        assert memory.context("flaky test", budget_tokens=budget).num_tokens <= budget


def test_advice_prefers_what_worked_in_situations_like_this_one(memory):
    for place in range(12):
        wide = place % 2 == 0
        for recipe in ("conv", "mlp"):
            with memory.episode("grow", namespace=None, wide=wide, width=place) as episode:
                episode.step("attach", recipe)
                good = (recipe == "conv") == wide
                episode.succeed(value=0.1) if good else episode.fail(value=-0.1)
    wide = memory.advise({"wide": True}, ["mlp", "conv", "unheard"])
    assert wide.best.action == "conv"
    assert wide.best.lower > 0.5
    assert wide.best.num_exact == 6
    assert memory.get(wide.best.evidence[0]).context["wide"] is True
    assert memory.advise({"wide": False}, ["mlp", "conv"]).best.action == "mlp"
    unheard = next(one for one in wide.recommendations if one.action == "unheard")
    assert (unheard.mean, unheard.num_episodes) == (0.5, 0)
    value = memory.advise({"wide": True}, ["conv"], numeric=True).best
    assert value.lower < value.mean <= 0.1


def test_advice_for_the_next_tool_knows_what_was_done_before(memory):
    for works in (True, True, False):
        fix(memory, works=works)
    told = memory.advise({"after": "after pytest failed"}, ["editor", "shell"])
    assert told.best.action == "editor"
    assert told.best.num_matched == 1


def test_a_playbook_and_heuristics_come_of_what_worked(memory):
    assert memory.playbook(domain="ci") is None
    for _ in range(3):
        fix(memory)
    for _ in range(3):
        with memory.episode("fix", domain="ci") as episode:
            episode.step("pytest", "run the suite", error="2 failed")
            episode.step("shell", "try again and again")
            episode.fail("no")
    book = memory.playbook(domain="ci")
    assert book.steps == ("pytest: run the suite", "editor: freeze the clock", "pytest: run the suite")
    assert len(book.evidence) == 3
    assert book.when == "domain ci language python"
    assert book.pitfalls == (
        "In ci: after pytest failed with <number> failed: avoid shell: try again and again.",
    )
    assert book.expected == "works in 80% of cases (47% to 99%)"
    best = {one.condition: one for one in memory.heuristics()}["after pytest failed with <number> failed"]
    assert best.action == ("editor: freeze the clock",)
    assert best.rather_than == ("shell: try again and again",)
    assert 0.4 < best.confidence <= 0.95


def test_a_playbook_says_where_its_way_has_failed_and_never_worked(memory):
    for system, works in (
        (("linux", True),) * 5 + (("windows", False),) * 2 + (("mac", False), ("linux", False))
    ):
        with memory.episode("build", domain="ci", system=system) as episode:
            episode.step("cmake", "configure")
            episode.step("ninja", "build")
            if not works:
                episode.fail()
    assert memory.playbook(domain="ci").unless == ("system windows",)


def test_relations_of_one_type_form_no_ring(memory):
    first, second, third = (fix(memory).id for _ in range(3))
    memory.relations.add("depends_on", second, first)
    memory.relations.add("depends_on", third, second)
    memory.relations.add("blocks", first, third)
    for source, target in ((first, third), (first, first)):
        with pytest.raises(EpisodeError, match="ring"):
            memory.relations.add("depends_on", source, target)
    with pytest.raises(EpisodeError, match="no episode or item"):
        memory.relations.add("depends_on", first, "nothing")
    assert [one.type for one in memory.relations.of(second)] == ["depends_on", "depends_on"]


def test_tags_find_episodes_and_are_renamed(memory):
    told = fix(memory, tags=("flaky", "night"))
    memory.tags.rename("night", "nightly")
    assert memory.tags.counts() == {"flaky": 1, "nightly": 1}
    assert [one.id for one in memory.episodes(Filter(all_tags=("flaky", "nightly")))] == [told.id]


def test_a_hand_off_keeps_its_budget_and_its_failures(memory):
    episode = memory.episode("move the data", domain="ops")
    for number in range(50):
        episode.step("copy", f"part {number}", error="disk is full" if number == 3 else None)
    memory.checkpoints.save(episode.id, note="half is done")
    told = memory.checkpoints.hand_off(episode.id, budget_tokens=150)
    assert told.num_tokens <= 150
    assert told.num_left_out > 0
    assert "4. copy part 3: FAILED: disk is full" in told.text
    assert "half is done" in told.text
    assert "50. copy part 49" in told.text
    with pytest.raises(EpisodeError, match="larger budget"):
        memory.checkpoints.hand_off(episode.id, budget_tokens=5)


def test_a_forgotten_episode_takes_its_evidence_along(memory):
    first, second, third = fix(memory, task="fix zebra"), fix(memory), fix(memory)
    note = memory.note("freeze the clock")
    with memory.episode("use it") as episode:
        episode.recall("clock")
        episode.used(note.id)
        episode.fail()
    memory.forget(episode=first.id)
    assert kinds(memory)[WAY].tally.occurrences == 2
    assert not memory.recall("zebra").relevant
    memory.forget(episode=episode.id)
    assert memory.store.items.get([note.id])[note.id].tally.failures == 0
    memory.forget(episode=second.id)
    assert memory.patterns() == []
    assert memory.get(third.id)
    assert memory.store.check() == []


def test_a_forgotten_namespace_leaves_the_others(memory):
    fix(memory, namespace="a")
    kept = fix(memory, namespace="b")
    assert memory.forget(namespace="a") == 1
    assert [one.id for one in memory.episodes(Filter())] == [kept.id]
    with pytest.raises(EpisodeError, match="one of them"):
        memory.forget()


def test_retention_keeps_the_only_evidence_of_a_pattern(memory, clock):
    told = [fix(memory).id for _ in range(5)]
    lone = memory.episode("nothing like it")
    lone.succeed()
    clock.now += 100 * 10**9
    swept = memory.retain(older_than=50)
    assert set(swept.kept) == set(told[-2:])
    assert set(swept.erased) == {*told[:3], lone.id}
    assert kinds(memory)[WAY].tally.occurrences == 2


def test_what_is_shown_and_never_used_retires_and_comes_back(memory):
    note = memory.note("cake")
    for number in range(20):
        memory.recall(f"cake {number}")
    assert memory.maintain().retired == (note.id,)
    assert not memory.recall("cake").relevant
    retired = memory.recall("cake", filter=Filter(state="retired"))
    memory.feedback(retired, [note.id], reward=1.0)
    assert memory.recall("cake").ids == (note.id,)


def test_secrets_never_reach_the_file(tmp_path):
    path = tmp_path / "memory.db"
    secrets = ("hunter2hunter2", "ghp_abcdefghijklmnopqrst0123456789", "sk-abcdefghijklmnopqrstuv")
    with Memory(path) as memory:
        with memory.episode(f"log in with password={secrets[0]}", token=secrets[1]) as episode:
            episode.step("curl", parameters={"headers": {"Authorization": f"Bearer {secrets[2]}"}})
            episode.step(
                "curl", error=f"https://user:{secrets[0]}@host refused", result={"api_key": secrets[1]}
            )
            episode.fail(f"the token {secrets[1]} is wrong")
        memory.note(f"use {secrets[2]}")
        memory.recall(f"password={secrets[0]}")
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert [secret for secret in secrets if secret.encode() in written] == []


def test_ordinary_words_are_not_taken_for_secrets(memory):
    text = "count the tokens: 512, the secret is a good test, keyboard, https://example.org/a:b@c"
    with memory.episode(text) as episode:
        episode.step("tool", text, tokens=7)
    found = memory.get(episode.id)
    assert found.task == text
    assert found.steps[0].tokens == 7


def test_broken_text_huge_steps_and_foreign_objects_are_kept(memory):
    big = "x" * 10_000_000
    with memory.episode("odd \ud800 task", domain="\x00") as episode:
        episode.step("tool", "a\ud800", result=big)
        episode.step("tool", parameters={"object": Step, "huge": 1 << 80, "text": "\udfff"})
    found = memory.get(episode.id)
    assert found.task == "odd \\ud800 task"
    assert found.steps[0].result == big
    assert "Step" in str(found.steps[1].parameters["object"])
    assert memory.recall("odd").relevant


def test_a_memory_that_is_closed_says_so(tmp_path):
    memory = Memory(tmp_path / "memory.db")
    memory.close()
    with pytest.raises(MemoryStoreError, match="closed"):
        memory.episode("task")
