"""Which words of a question are worth looking for. Does not know where they are looked for.

Stemming and diacritics are the index's own business: what is given here goes to it as it stands.
"""

from __future__ import annotations

import datetime
import re
from typing import Final

MAX_TERMS: Final = 32
"""A question longer than this is cut; give ``ranking.informative`` the rest to choose from."""

_WORD: Final = re.compile(r"[^\W_]+")


def tokens(text: str) -> list[str]:
    """Runs of letters and digits in lower case, in order. ``mia_li_3668`` gives three, ``don't`` gives two."""
    return _WORD.findall(text.lower())


FUNCTION_WORDS: Final = frozenset(
    tokens("""
    a about after again all also am an and any are as at be because been before being both but by can could did do
    does doing down during each every few for from further had has have having he her here hers him his how i if in
    into is it its just may me might more most must my myself no nor not now of off on once only or other our ours
    out over own same shall she should so some such than that the their theirs them then there these they this those
    through to too under until up us very was we were what when where which while who whom whose why will with would
    you your yours
    d ll m re s t ve aren couldn didn doesn don hadn hasn haven isn shouldn wasn weren won wouldn
    """)
)
"""English function words, and what an apostrophe leaves of them."""
COURTESIES: Final = frozenset(tokens("hello help hey hi let like need please thank thanks want get got go"))
"""The words in which a request is wrapped."""
STOP_WORDS: Final = FUNCTION_WORDS | COURTESIES
_MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)


def terms(question: str, *, limit: int = MAX_TERMS) -> list[str]:
    """Distinct words of a question in order, at most ``limit``; stop words only if there is nothing else."""
    words = dict.fromkeys(tokens(question))
    return [*([word for word in words if word not in STOP_WORDS] or words)][:limit]


def date_words(day: datetime.date) -> str:
    """A day as people write it, whatever the locale: ``8 May 2023``."""
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"
