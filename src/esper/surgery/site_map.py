"""The places of a network where it can grow, to print and to choose from. Does not know how they are found."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import NamedTuple

from esper.errors import SiteError
from esper.surgery.block import Block
from esper.surgery.blocks import Blocks
from esper.surgery.names import above
from esper.surgery.site import Site

_WILD = frozenset("*?[")
_HEADS = ("module", "class", "parameters", "share", "grows", "how, or why not")


@dataclass(frozen=True)
class SiteRow:
    """One module that owns parameters: how many, and whether a graft can act there (``note``: how, or why not).

    Parameters shared with another module are counted at the first that is called.
    """

    module: str
    class_name: str
    params: int
    share: float
    growable: bool
    note: str


class Parts(NamedTuple):
    """Every block of a network once, in its order, and the modules that add to its residual streams."""

    blocks: tuple[Block, ...] = ()
    streams: tuple[str, ...] = ()


@dataclass(frozen=True)
class SiteMap:
    """Every module with parameters, and the sites among them in the order in which the network calls them.

    ``params`` and ``macs`` are the host's: parameters, and multiply-adds per example. ``runs`` says how many
    times per example a graft at a site runs: more than once where its module is called repeatedly, or on batches
    with other dimensions folded in. ``droppable`` modules return one tensor and
    nothing else, and nobody else reads their weights, so that grafts can take the place of all that they do. ``offers``
    also holds the sites that are grown on request only: a graft ``after`` each module. ``streams`` are modules, each
    called once, that add to a residual stream, ``heads`` blocks of which whole heads can go. Iterating gives the rows.
    """

    rows: tuple[SiteRow, ...]
    sites: tuple[Site, ...]
    offers: tuple[Site, ...]
    runs: Mapping[str, float]
    droppable: frozenset[str]
    params: int
    macs: int
    remark: str = ""
    streams: tuple[str, ...] = ()
    heads: tuple[Block, ...] = ()

    @property
    def growable_share(self) -> float:
        """Share of the parameters that lie in growable rows."""
        return sum(row.share for row in self.rows if row.growable)

    @property
    def parts(self) -> Parts:
        """What the network can perhaps do without."""
        own = dict.fromkeys(site.block for site in self.offers if site.block is not None)
        readers = {block.consumer for block in own}
        return Parts((*own, *(b for b in self.heads if b.consumer not in readers)), self.streams)

    def select(self, patterns: str | Sequence[str]) -> SiteMap:
        """This map with only the sites that match one of the patterns; several patterns add up.

        A pattern is a site's name with ``*`` and ``?`` as wild cards, or a module that contains sites. ``a..b``
        chooses spans, ``a+`` grafts after ``a``, anything else sites beside one module. Raises SiteError for a
        pattern that matches none.
        """
        by_holder: dict[str, list[Site]] = defaultdict(list)
        for site in self.offers:
            for holder in (site.entry, *above(site.entry)):
                by_holder[holder].append(site)
        chosen: set[str] = set()
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            first = pattern.partition("..")[0].rstrip("+")
            likely = self.offers if set(first) & _WILD else by_holder.get(first, ())
            found = {site.name for site in likely if _matches(site, pattern)}
            if not found:
                raise SiteError(self._unknown(pattern))
            chosen |= found
        return replace(self, sites=tuple(site for site in self.offers if site.name in chosen))

    def with_blocks(self, blocks: Blocks) -> SiteMap:
        """This map with the blocks that spans reach across; spans that have one are sites of their own accord."""
        offers = tuple(map(blocks.placed, self.offers))
        chosen = {site.name for site in self.sites}
        sites = tuple(site for site in offers if site.name in chosen or site.block is not None)
        widened = {name: str(block) for block in blocks.found.values() for name in block.producers}
        rows = (
            replace(r, note=f"{r.note}, widens {widened[r.module]}") if r.module in widened else r
            for r in self.rows
        )
        return replace(self, sites=sites, offers=offers, rows=tuple(rows))

    def _unknown(self, pattern: str) -> str:
        for row in self.rows:
            if row.module == pattern:
                return f"no graft can be placed beside {pattern!r}: {row.note}"
        names = [site.name for site in self.offers]
        near = get_close_matches(pattern, names, n=3, cutoff=0.5) or names[:3]
        return f"no site matches {pattern!r}; there are {', '.join(near)}, and others: print(grower.sites())"

    def __iter__(self) -> Iterator[SiteRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        lines = [_HEADS, *self._cells()]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = ["  ".join(_aligned(line, widths)).rstrip() for line in lines]
        return "\n".join([*table, self._summary()])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in _HEADS)
        lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in line) for line in self._cells())
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"{table}<p>{html.escape(self._summary())}</p>"

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (
                row.module or "(the model)",
                row.class_name,
                f"{row.params:,}",
                f"{row.share:.1%}",
                "yes" if row.growable else "no",
                row.note,
            )
            for row in self.rows
        ]

    def _summary(self) -> str:
        spans = sum(site.is_span for site in self.sites)
        places = (
            f"{len(self.sites)} site{'s' * (len(self.sites) != 1)}, of them {spans} across several modules"
        )
        text = (
            f"{places}; {self.growable_share:.1%} of {self.params:,} parameters can grow; "
            f"{self.macs:,} multiply-adds per example."
        )
        return f"{text} {self.remark}".rstrip()


def _aligned(cells: tuple[str, ...], widths: list[int]) -> list[str]:
    numbers = _HEADS.index("parameters"), _HEADS.index("share")
    return [
        cell.rjust(width) if column in numbers else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]


def _matches(site: Site, pattern: str) -> bool:
    if site.is_span or ".." in pattern:
        entry, _, exit_ = pattern.partition("..")
        return site.is_span and ".." in pattern and _within(site.entry, entry) and _within(site.exit, exit_)
    return _within(site.name, pattern)


def _within(name: str, pattern: str) -> bool:
    """``fc*`` and ``*.fc`` by wild cards, ``encoder`` for all inside it; ``+`` only where the pattern has it too."""
    if name.endswith("+") != pattern.endswith("+"):
        return False
    return fnmatchcase(name, pattern) or name.startswith(f"{pattern.rstrip('+')}.")
