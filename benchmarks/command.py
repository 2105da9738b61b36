"""The options that all benchmark scripts share. Does not know what they run."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """``quick`` shrinks a run to seconds and stores nothing."""

    seeds: range
    jobs: int
    data: Path
    quick: bool
    command: str


def options(name: str, description: str, *, seeds: int = 5) -> Options:
    """Read the command line of ``python -m benchmarks.<name>``."""
    parser = argparse.ArgumentParser(f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--seeds", type=int, default=seeds, help="number of seeds (%(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them (%(default)s)")
    parser.add_argument(
        "--jobs", type=int, default=1, help="processes side by side, one thread each (%(default)s)"
    )
    cache = Path("~/.cache/esper-benchmarks").expanduser()
    parser.add_argument(
        "--data", type=Path, default=cache, help="where generated data are kept (%(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="a run of seconds that stores nothing")
    given = parser.parse_args()
    seeds_range = range(given.first_seed, given.first_seed + (1 if given.quick else given.seeds))
    line = shlex.join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]])
    return Options(seeds_range, given.jobs, given.data, given.quick, line)
