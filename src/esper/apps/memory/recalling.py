"""``esper memory recall`` and its kin: what helps now, and saying what of it was used."""

from __future__ import annotations

from typing import Annotated, Any

from esper.apps.memory.opened import (
    AllTags,
    AnyTags,
    Domain,
    Features,
    Json,
    Tags,
    TaskType,
    episode_id,
    features,
    opened,
    opened_for_recall,
    told,
)
from esper.apps.memory.shown import ANSWERS, answer_row, answers_as_data, whole
from esper.apps.terminal import Argument, BadParameter, Context, Option, Typer, echo, print_json
from esper.memory.recall.advise import Advice
from esper.memory.recall.answers import Recalled
from esper.memory.records import ItemKind, Value
from esper.memory.stores.store import Filter

Query = Annotated[str, Argument(help="what is at hand, in words; - reads standard input")]
Kind = Annotated[ItemKind | None, Option(help="only these")]
_ADVICE = ("action", "mean", "lower", "upper", "episodes", "alike")


def add_to(app: Typer) -> None:
    """Put the commands of this file right under ``esper memory``."""
    for command in (recall, context, advise, feedback, note):
        app.command()(command)


def recall(  # noqa: PLR0913 - one parameter an option
    context: Context,
    query: Query,
    *,
    k: Annotated[int, Option("-k", help="at most so many answers", min=1)] = 5,
    task_type: TaskType = "",
    domain: Domain = "",
    kind: Kind = None,
    tag: AllTags = None,
    any_tag: AnyTags = None,
    episode: Annotated[
        str | None, Option(help="recall inside this open episode; then say: episode used")
    ] = None,
    explain: Annotated[bool, Option("--explain", help="show what each total is made of")] = False,
    as_json: Json = False,
) -> None:
    """Recall what helps: episodes, patterns and notes, best first. Nothing relevant is an answer, too.

    --type and --domain say what is preferred, --kind, --tag and --any-tag what may come at all.

    [bold]Examples[/bold]

    esper memory recall "test fails only at night" -k 3

    git diff | head -50 | esper memory recall - --json
    """
    with opened_for_recall(context) as memory:
        words = told(query)
        if episode is not None:
            if kind or tag or any_tag or task_type or domain:
                raise BadParameter(
                    "--episode brings its own situation; leave out --kind, --tag, --any-tag, --type and --domain"
                )
            found = memory.resume(episode_id(memory, episode)).recall(words, k=k)
        else:
            filter = Filter(
                namespace=memory.namespace,
                kinds=(kind,) if kind else (),
                all_tags=tuple(tag or ()),
                any_tags=tuple(any_tag or ()),
            )
            found = memory.recall(words, k=k, filter=filter, task_type=task_type, domain=domain)
    if as_json:
        return print_json(answers_as_data(found))
    return _print(found, explain=explain)


def _print(found: Recalled, *, explain: bool) -> None:
    from esper.apps.display import print_table

    if explain or not found.relevant:
        echo(found.explain())
    else:
        print_table(ANSWERS, [answer_row(answer) for answer in found])
        if found.notice:
            echo(found.notice, err=True)
    if found.relevant:
        echo(f"if something helped: esper memory feedback {found.exposure} ITEM... --reward 1", err=True)


def context(
    context: Context,
    task: Annotated[str, Argument(help="what is to be done; - reads standard input")],
    *,
    budget: Annotated[
        int, Option(help="at most so many tokens, estimated at three bytes each", min=1)
    ] = 1_000,
    task_type: TaskType = "",
    domain: Domain = "",
    as_json: Json = False,
) -> None:
    """Print what a prompt should know before a task: lessons, what has worked, what to avoid.

    [bold]Example[/bold]

    esper memory context "fix the flaky test" --budget 500 >> prompt.txt
    """
    with opened_for_recall(context) as memory:
        found = memory.context(told(task), budget_tokens=budget, task_type=task_type, domain=domain)
    return print_json(whole(found)) if as_json else echo(found.text)


def advise(
    context: Context,
    actions: Annotated[
        list[str], Argument(metavar="ACTION...", help="tools or actions, as they were recorded")
    ],
    *,
    situation: Features = None,
    numeric: Annotated[
        bool, Option("--numeric", help="mean of the outcomes' values, not chance of success")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say which of several actions is likely to work in a situation, best first, with 90 % intervals.

    [bold]Example[/bold]

    esper memory advise retry "freeze the clock" --context domain=ci --context "after=pytest failed"
    """
    with opened(context) as memory:
        found = memory.advise(_situation(situation), actions, numeric=numeric)
    if as_json:
        return print_json(whole(found))
    return _print_advice(found)


def _situation(pairs: list[str] | None) -> dict[str, Value]:
    """Here task type and domain are features like all others."""
    own = [pair for pair in pairs or () if pair.startswith(("task_type=", "domain="))]
    named = dict(pair.split("=", 1) for pair in own)
    return {**named, **features(pair for pair in pairs or () if pair not in own)}


def _print_advice(found: Advice) -> None:
    from esper.apps.display import print_table

    rows = [
        [one.action, one.mean, one.lower, one.upper, one.num_episodes, one.num_exact]
        for one in found.recommendations
    ]
    print_table(_ADVICE, rows)


def feedback(
    context: Context,
    recall: Annotated[str, Argument(help="the exposure that recall printed")],
    items: Annotated[list[str], Argument(metavar="ITEM...", help="ids of what was used")],
    *,
    reward: Annotated[float | None, Option(help="what came of it: trust moves at once", min=0, max=1)] = None,
) -> None:
    """Say what of a recall was used, and how it went: what helps rises, what harms sinks and retires."""
    with opened(context) as memory:
        memory.feedback(recall, items, reward=reward)
    echo(f"{len(items)} noted")


def note(
    context: Context,
    text: Annotated[str, Argument(help="what to remember; - reads standard input")],
    *,
    title: Annotated[str, Option(help="its subject, or who said it")] = "",
    tag: Tags = None,
    thread: Annotated[str, Option(help="a conversation or run that it belongs to")] = "",
    situation: Features = None,
    as_json: Json = False,
) -> None:
    """Remember a text; it is recalled like everything else. Prints its id."""
    about: dict[str, Any] = {**features(situation)}
    with opened(context) as memory:
        item = memory.note(
            told(text), title=title, tags=tag or (), thread=thread, namespace=memory.namespace, **about
        )
    return print_json(whole(item)) if as_json else echo(item.id)
