"""The loop from a shell: record, complete, recall, use, feedback; and what refuses."""

from __future__ import annotations

import json

import pytest


def test_an_episode_goes_from_the_shell_to_a_recall(shell, solve):
    id = solve()
    found = shell.json("recall", "flaky test", "-k", "1")
    assert [answer["id"] for answer in found["answers"]] == [id]
    assert found["answers"][0]["why"]


def test_what_was_recorded_is_shown_again_with_its_parts(shell, solve):
    id = solve()
    found = shell.json("episode", "view", id)
    assert (found["task"], found["state"], found["num_steps"]) == ("fix the flaky test", "completed", 2)
    outcome = found["outcome"]
    assert (outcome["ending"], outcome["reason"], outcome["verified"]) == ("success", "as it went", 1.0)
    told = shell("episode", "view", "latest")
    assert "FAILED: 2 failed" in told
    assert "worked: editor: freeze the clock" in told


def test_an_id_its_end_and_the_words_latest_and_open_mean_the_same_episode(shell):
    id = shell("episode", "create", "a task")
    for word in (id, id[-6:], "latest", "open"):
        assert shell.json("episode", "view", word)["id"] == id
    shell("episode", "fail", "open", "no way")
    assert "there is no open episode" in shell.refused("episode", "view", "open")


def test_task_result_reason_and_query_come_through_a_pipe(shell):
    id = shell("episode", "create", "-", given="a task\n")
    shell("episode", "step", id, "--tool", "cat", "--result", "-", given="two\nlines\n")
    shell("episode", "complete", id, "-", given="piped")
    found = shell.json("episode", "view", id)
    assert (found["task"], found["steps"][0]["result"], found["outcome"]["reason"]) == (
        "a task",
        "two\nlines",
        "piped",
    )
    assert shell.json("recall", "-", given="task")["answers"][0]["id"] == id


def test_the_context_keeps_numbers_truths_and_words_apart(shell):
    id = shell(
        "episode",
        "create",
        "a task",
        "-c",
        "python=3.11",
        "-c",
        "slow=true",
        "-c",
        "os=debian",
        "-c",
        "v=1.2.3",
    )
    assert shell.json("episode", "view", id)["context"] == {
        "python": 3.11,
        "slow": True,
        "os": "debian",
        "v": "1.2.3",
    }


@pytest.mark.parametrize("pair", ["python", "=3", "task=x", "namespace=y"])
def test_a_pair_that_is_none_is_a_mistake_of_use(shell, pair):
    code, _, _ = shell.run("episode", "create", "a task", "--context", pair)
    assert code == 2
    assert shell("episode", "list") == "no such episodes"


def test_partial_abstained_and_abandoned_episodes_end_so(shell):
    for words, ending in (
        (("complete", "open", "--share", "0.5"), "partial"),
        (("abstain", "open", "not mine"), "abstained"),
        (("fail", "open"), "failure"),
    ):
        shell("episode", "create", "a task")
        assert shell.json("episode", *words)["outcome"]["ending"] == ending
    id = shell("episode", "create", "a task")
    shell("episode", "abandon", id)
    assert shell.json("episode", "view", id)["state"] == "abandoned"


def test_what_has_ended_takes_no_step(shell, solve):
    id = solve()
    assert f"episode {id} is completed" in shell.refused("episode", "step", id, "--tool", "x")


def test_lists_are_filtered_and_go_on(shell, solve):
    ids = [solve(), solve("add a page", domain="web"), solve(ending="fail")]
    assert [one["id"] for one in shell.json("episode", "list")] == ids[::-1]
    assert [one["id"] for one in shell.json("episode", "list", "--domain", "web")] == [ids[1]]
    assert [one["id"] for one in shell.json("episode", "list", "-n", 1, "--before", ids[1])] == [ids[0]]
    code, _, hint = shell.run("episode", "list", "-n", 2)
    assert (code, hint) == (0, f"there may be more: --before {ids[1]}\n")


def test_search_finds_ended_episodes_only(shell, solve):
    id = solve()
    shell("episode", "create", "fix the flaky test")
    assert [one["id"] for one in shell.json("episode", "search", "pytest")] == [id]
    assert shell("episode", "search", "submarine") == "no such episodes"


def test_nothing_is_erased_without_a_yes(shell, solve):
    id = solve()
    assert "--yes" in shell.refused("episode", "delete", id)
    assert shell("episode", "delete", id, "--yes") == f"{id} erased"
    assert f"there is no episode {id}" in shell.refused("episode", "view", id)


def test_feedback_moves_trust(shell, solve):
    id = solve()
    found = shell.json("recall", "flaky test")
    before = found["answers"][0]["trust"]["mean"]
    shell("feedback", found["exposure"], id, "--reward", 0)
    assert shell.json("recall", "flaky test")["answers"][0]["trust"]["mean"] < before


def test_what_an_episode_used_is_judged_by_its_end(shell, solve):
    id = solve()
    before = shell.json("recall", "flaky test")["answers"][0]["trust"]["mean"]
    shell("episode", "create", "fix another flaky test")
    shell("recall", "flaky test", "--episode", "open")
    shell("episode", "used", "open", id)
    shell("episode", "fail", "open", "it was the network", "--verified", 0)
    trust = {one["id"]: one["trust"]["mean"] for one in shell.json("recall", "flaky test")["answers"]}
    assert trust[id] < before


def test_nothing_relevant_is_an_answer(shell, solve):
    solve()
    assert "nothing relevant" in shell("recall", "submarine")
    assert shell.json("recall", "submarine")["answers"] == []


def test_recall_explains_itself_and_keeps_to_a_kind(shell, solve):
    solve(), solve()
    assert " = " in shell("recall", "flaky test", "--explain")
    kinds = {
        one["item"]["kind"] for one in shell.json("recall", "flaky test", "--kind", "pattern")["answers"]
    }
    assert kinds == {"pattern"}


def test_an_open_episode_brings_its_own_situation(shell):
    shell("episode", "create", "a task")
    assert "leave out" in shell.refused("recall", "x", "--episode", "open", "--domain", "ci")


def test_a_note_is_recalled(shell):
    id = shell("note", "the deploy key rotates on Mondays", "--title", "keys", "--tag", "ops")
    assert shell.json("recall", "keys")["answers"][0]["item"]["lesson"]["title"] == "keys"
    assert shell.json("recall", "when does the deploy key rotate")["answers"][0]["id"] == id
    assert shell.json("recall", "deploy", "--tag", "web")["answers"] == []


def test_context_stays_within_its_budget(shell, solve):
    solve()
    pack = shell.json("context", "a flaky test", "--budget", 60)
    assert 0 < pack["num_tokens"] <= 60
    assert shell("context", "a flaky test", "--budget", 60) == pack["text"]


def test_advice_prefers_what_worked(shell, solve):
    for _ in range(3):
        solve()
        solve(ending="fail", cure="retry")
    found = shell.json("advise", "retry", "freeze the clock", "-c", "domain=ci")
    assert [one["action"] for one in found["recommendations"]] == ["freeze the clock", "retry"]
    assert shell("advise", "retry", "freeze the clock").splitlines()[1].startswith("freeze the clock")


def test_patterns_playbooks_and_heuristics_come_of_episodes(shell, solve):
    assert "no such patterns" in shell("pattern", "list")
    assert "no playbook yet" in shell("playbook")
    assert "no heuristics yet" in shell("heuristics")
    ids = {solve() for _ in range(3)}
    found = shell.json("pattern", "list", "--kind", "sequence")
    assert {one["pattern"] for one in found} == {"sequence"}
    actions = found[0]["lesson"]["actions"]
    view = shell.json("pattern", "view", found[0]["id"])
    assert {one["episode"] for one in view["evidence"]} == ids
    assert f"do         {' → '.join(actions)}" in shell("pattern", "view", found[0]["id"])
    guide = shell.json("playbook", "--type", "bugfix", "--domain", "ci")
    assert guide["steps"][-1].startswith("editor")
    assert f"1. {guide['steps'][0]}" in shell("playbook", "--type", "bugfix", "--domain", "ci")


def test_tags_are_counted_and_renamed(shell, solve):
    id = solve()
    shell("tag", "add", id, "slow", "night")
    shell("tag", "rename", "slow", "sluggish")
    shell("tag", "remove", id, "night")
    assert shell.json("tag", "list") == {"sluggish": 1}
    assert [one["id"] for one in shell.json("episode", "list", "--tag", "sluggish")] == [id]
    assert shell.json("episode", "list", "--tag", "sluggish", "--tag", "day") == []
    assert len(shell.json("episode", "list", "--any-tag", "sluggish", "--any-tag", "day")) == 1
    assert (
        shell.json("recall", "flaky", "--any-tag", "sluggish", "--any-tag", "day")["answers"][0]["id"] == id
    )


def test_relations_are_listed_and_form_no_ring(shell, solve):
    first, second = solve(), solve()
    shell("relation", "add", second, "follows", first)
    assert shell("relation", "list", first) == f"{second} follows {first}"
    assert "ring" in shell.refused("relation", "add", first, "follows", second)
    shell("relation", "remove", second, "follows", first)
    assert shell("relation", "list", first) == "no relations"


def test_a_checkpoint_hands_an_episode_over(shell):
    shell("episode", "create", "move the house", "-c", "rooms=4")
    shell("episode", "step", "open", "--tool", "van", "--error", "no fuel")
    shell("checkpoint", "save", "--note", "keys are with the neighbour")
    told = shell("checkpoint", "hand-off")
    assert all(words in told for words in ("move the house", "rooms: 4", "neighbour", "FAILED: no fuel"))
    assert "after step 1" in shell("checkpoint", "list")


def test_namespaces_do_not_see_each_other(shell, solve):
    solve()
    assert shell("--namespace", "other", "episode", "list") == "no such episodes"
    assert shell.json("--namespace", "other", "recall", "flaky test")["answers"] == []


def test_at_opens_another_place_and_says_when_it_cannot(shell, tmp_path):
    shell("--at", tmp_path / "other.db", "note", "somewhere else")
    assert (tmp_path / "other.db").exists()
    (tmp_path / "text.db").write_text("no database " * 100)
    assert "error:" in shell.refused("--at", tmp_path / "text.db", "episode", "list")
    assert "redis://" in shell.refused("--at", "redis://x", "episode", "list")


def test_an_embedder_finds_what_words_do_not_and_can_embed_all_again(shell):
    shell("note", "the automobile needs oil", "--title", "garage")
    shell("note", "the bread is in the oven", "--title", "kitchen")
    assert shell.json("recall", "what does my car want")["answers"] == []
    assert shell("--embedder", "table", "embed-again") == "2 embedded"
    found = shell.json("--embedder", "table", "recall", "what does my car want", "-k", 1)
    assert [one["text"] for one in found["answers"]] == ["the automobile needs oil"]


def test_the_environment_names_the_embedder(shell, monkeypatch):
    monkeypatch.setenv("ESPER_MEMORY_EMBEDDER", "table")
    shell("note", "the automobile needs oil")
    assert shell.json("embed-again") == {"embedded": 1}
    assert shell.json("recall", "what does my car want")["notice"] == ""


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("best", "is no embedder"),
        ("onnx:", "is no embedder"),
        ("https://server/v1/embeddings?model=m", "lacks its model or dimension"),
        ("https://server/v1/embeddings?model=m&dimension=many", "lacks its model or dimension"),
    ],
)
def test_an_embedder_that_is_none_is_one_line_of_error(shell, word, told):
    assert told in shell.refused("--embedder", word, "recall", "x")


def test_without_an_embedder_there_is_nothing_to_embed(shell):
    assert "--embedder" in shell.refused("embed-again")


def test_a_provider_that_does_not_answer_is_told_and_words_answer(shell):
    shell("note", "the automobile needs oil")
    nobody = "http://127.0.0.1:9/v1/embeddings?model=m&dimension=3"
    code, out, err = shell.run("--embedder", nobody, "recall", "automobile")
    assert code == 0
    assert "automobile" in out
    assert "by words alone" in err


def test_a_trace_names_what_each_command_did(shell, solve, tmp_path):
    id = solve()
    answers = shell.json("--trace", "trace.jsonl", "recall", "flaky")
    line = json.loads((tmp_path / "trace.jsonl").read_text())
    assert (line["deed"], line["ids"]) == ("recall", [answers["exposure"]])
    shell("--trace", "trace.jsonl", "note", "cake")
    other = shell("--trace", "trace.jsonl", "episode", "create", "bake")
    told = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text().splitlines()]
    assert [(one["deed"], one["ids"]) for one in told[1:]] == [("write", [other])]
    assert id not in str(told)
    assert "give another --trace" in shell.refused("--trace", "nowhere/trace.jsonl", "recall", "flaky")
