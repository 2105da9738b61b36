"""Self-learning episodic memory: records what was tried, learns from how it went, and answers the next time.

A product of its own: no torch, no server, one SQLite file by default.
"""

from __future__ import annotations

from esper.memory.journal import Options
from esper.memory.memory import Memory

__all__ = ["Memory", "Options"]
