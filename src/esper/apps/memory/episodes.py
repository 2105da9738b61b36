"""``esper memory episode``: record what is tried, step by step, and look at it again."""

from __future__ import annotations

from typing import Annotated

from esper.apps.memory.opened import (
    AllTags,
    AnyTags,
    Count,
    Domain,
    Features,
    Json,
    Tags,
    TaskType,
    Yes,
    episode_id,
    features,
    make_sure,
    opened,
    opened_for_recall,
    told,
)
from esper.apps.memory.shown import EPISODES, STEPS, episode_fields, episode_row, lessons, step_row, whole
from esper.apps.terminal import Argument, Context, Option, Typer, echo, print_json
from esper.memory.records import Episode, Outcome, State
from esper.memory.stores.store import Filter

group = Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="""Record what is tried, step by step; learn when it ends.

    [bold]An episode from the shell[/bold]

    id=$(esper memory episode create "fix the flaky test" --domain ci)

    esper memory episode step $id --tool pytest --error "2 failed"

    esper memory episode step $id --tool editor --action "freeze the clock" --result passed

    esper memory episode complete $id "tests pass" --verified 1
    """,
)

Id = Annotated[
    str,
    Argument(
        metavar="EPISODE", help="its id, the end of a recent id, 'latest', or 'open': the latest open one"
    ),
]
Reason = Annotated[str, Argument(help="in a few words; - reads standard input")]
Verified = Annotated[
    float | None, Option(help="what tests, CI or a rating said; counts four times your word", min=0, max=1)
]
Parameters = Annotated[
    list[str] | None, Option("--parameter", "-p", metavar="NAME=VALUE", help="may be given again")
]
Number = Annotated[
    float | None, Option("--value", help="an outcome that is a number, in the task's own unit")
]


@group.command()
def create(
    context: Context,
    task: Annotated[str, Argument(help="what is to be done; - reads standard input")],
    *,
    task_type: TaskType = "",
    domain: Domain = "",
    tag: Tags = None,
    situation: Features = None,
    as_json: Json = False,
) -> None:
    """Start an episode and print its id."""
    with opened(context) as memory:
        recording = memory.episode(
            told(task),
            task_type=task_type,
            domain=domain,
            namespace=memory.namespace,
            tags=tag or (),
            **features(situation),
        )
        episode = memory.get(recording.id)
    return print_json(whole(episode)) if as_json else echo(episode.id)


@group.command()
def step(  # noqa: PLR0913 - one parameter an option
    context: Context,
    episode: Id,
    *,
    tool: Annotated[str, Option(help="what was used")] = "",
    action: Annotated[str, Option(help="what was done with it")] = "",
    result: Annotated[str | None, Option(help="what came of it; - reads standard input")] = None,
    error: Annotated[str | None, Option(help="it went wrong, so; - reads standard input")] = None,
    parameter: Parameters = None,
    seconds: Annotated[float | None, Option(help="how long it took", min=0)] = None,
    tokens: Annotated[int | None, Option(help="tokens spent", min=0)] = None,
    as_json: Json = False,
) -> None:
    """Note one step of an open episode. It is stored when the command returns."""
    with opened(context) as memory:
        recording = memory.resume(episode_id(memory, episode))
        receipt = recording.step(
            tool,
            action,
            parameters=features(parameter) or None,
            result=None if result is None else told(result),
            error=None if error is None else told(error),
            latency=seconds,
            tokens=tokens,
        )
    return print_json(receipt) if as_json else echo(f"step {receipt.number} stored")


@group.command()
def complete(
    context: Context,
    episode: Id,
    reason: Reason = "",
    *,
    share: Annotated[float | None, Option(help="only this part was done, from 0 to 1", min=0, max=1)] = None,
    verified: Verified = None,
    value: Number = None,
    as_json: Json = False,
) -> None:
    """End an episode well, and learn from it; with --share in part."""
    outcome = Outcome(
        ending="success" if share is None else "partial",
        share=share or 0.0,
        reason=told(reason),
        verified=verified,
        value=value,
    )
    _end(context, episode, outcome, as_json=as_json)


@group.command()
def fail(
    context: Context,
    episode: Id,
    reason: Reason = "",
    *,
    verified: Verified = None,
    value: Number = None,
    as_json: Json = False,
) -> None:
    """End an episode that failed, and learn from it: failures teach most."""
    outcome = Outcome(ending="failure", reason=told(reason), verified=verified, value=value)
    _end(context, episode, outcome, as_json=as_json)


@group.command()
def abstain(context: Context, episode: Id, reason: Reason = "", *, as_json: Json = False) -> None:
    """End an episode whose task was refused."""
    _end(context, episode, Outcome(ending="abstained", reason=told(reason)), as_json=as_json)


def _end(context: Context, word: str, outcome: Outcome, *, as_json: bool) -> None:
    with opened(context) as memory:
        ended = memory.complete(episode_id(memory, word), outcome)
    if as_json:
        return print_json(whole(ended))
    score = ended.score.total if ended.score else 0.0
    echo(f"{outcome.ending}, score {score:.2f} after {ended.num_steps} steps")
    for line in lessons(ended):
        echo(f"  {line}")
    return None


@group.command()
def abandon(context: Context, episode: Id) -> None:
    """Give an open episode up; nothing is learned from it."""
    with opened(context) as memory:
        found = memory.resume(episode_id(memory, episode)).abandon()
    echo(f"{found.id} abandoned")


@group.command()
def used(
    context: Context,
    episode: Id,
    items: Annotated[list[str], Argument(metavar="ITEM...", help="ids that recall --episode showed")],
) -> None:
    """Say which recalled items were relied on in an open episode; its end decides what that was worth."""
    with opened(context) as memory:
        memory.resume(episode_id(memory, episode)).used(*items)
    echo(f"{len(items)} noted")


@group.command("list")
def list_(  # noqa: PLR0913 - one parameter an option
    context: Context,
    *,
    task_type: TaskType = "",
    domain: Domain = "",
    tag: AllTags = None,
    any_tag: AnyTags = None,
    state: Annotated[State | None, Option(help="only these")] = None,
    limit: Count = 20,
    before: Annotated[str | None, Option(metavar="ID", help="go on behind this episode")] = None,
    as_json: Json = False,
) -> None:
    """List episodes, newest first."""
    with opened(context) as memory:
        filter = Filter(
            namespace=memory.namespace,
            task_type=task_type or None,
            domain=domain or None,
            state=state,
            all_tags=tuple(tag or ()),
            any_tags=tuple(any_tag or ()),
        )
        found = memory.episodes(filter, limit=limit, before=before)
    if as_json:
        return print_json([whole(one) for one in found])
    return _print(found, limit)


def _print(found: list[Episode], limit: int) -> None:
    from esper.apps.display import print_table

    if not found:
        return echo("no such episodes")
    print_table(EPISODES, [episode_row(episode) for episode in found])
    if len(found) == limit:
        echo(f"there may be more: --before {found[-1].id}", err=True)
    return None


@group.command()
def view(context: Context, episode: Id = "latest", *, as_json: Json = False) -> None:
    """Show an episode: situation, steps, outcome, score with its parts, and what was learned."""
    from esper.apps.display import print_fields, print_table

    with opened(context) as memory:
        found = memory.get(episode_id(memory, episode))
    if as_json:
        return print_json(whole(found))
    print_fields(episode_fields(found))
    if found.steps:
        echo("")
        print_table(STEPS, [step_row(step) for step in found.steps])
    for line in ["", *lessons(found)] if found.reflection else []:
        echo(line)
    return None


@group.command()
def search(
    context: Context,
    query: Annotated[str, Argument(help="words; - reads standard input")],
    *,
    limit: Count = 10,
    as_json: Json = False,
) -> None:
    """Find ended episodes by words, best first."""
    with opened_for_recall(context) as memory:
        filter = Filter(namespace=memory.namespace, kinds=("episode",))
        ids = memory.recall(told(query), k=limit, filter=filter).ids
        found = list(memory.get_many(ids, steps=False).values())
    if as_json:
        return print_json([whole(one) for one in found])
    return _print(found, limit + 1)


@group.command()
def delete(
    context: Context,
    episodes: Annotated[list[str], Argument(metavar="EPISODE...", help="ids")],
    *,
    yes: Yes = False,
) -> None:
    """Erase episodes, and all evidence that came of them."""
    with opened(context) as memory:
        ids = [episode_id(memory, word) for word in episodes]
        make_sure(f"Erase {len(ids)} episode(s) and what was learned from them?", yes=yes)
        for id in ids:
            memory.forget(episode=id)
            echo(f"{id} erased")
