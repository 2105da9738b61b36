"""Prints the mutation score by module, and the mutants that no test noticed, from mutmut's last run."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter, defaultdict

NOTICED = {"killed", "timeout", "caught by type check", "segfault"}


def main() -> int:
    """One line a module, then the survivors; never fails."""
    command = [sys.executable, "-m", "mutmut", "results", "--all", "true"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    unnoticed = []
    for line in filter(None, map(str.strip, answer.splitlines())):
        mutant, outcome = line.split(": ")
        if outcome == "not checked":
            continue
        outcomes[mutant.rpartition(".")[0]][outcome] += 1
        if outcome not in NOTICED:
            unnoticed.append(f"{outcome}: {mutant}")
    print(*sorted(unnoticed), sep="\n")
    for module, counts in [*sorted(outcomes.items()), ("all", sum(outcomes.values(), Counter()))]:
        noticed, total = sum(counts[outcome] for outcome in NOTICED), counts.total()
        print(
            f"{module:40} {noticed:5} of {total:5} mutants noticed, {noticed / max(total, 1):4.0%}  {dict(counts)}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
