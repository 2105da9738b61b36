"""Looks up every pin of a requirements file in PyPI's advisory data.

A known vulnerability fails; a service that does not answer is only reported.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

COMMAND = ["-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json", "-r"]


def ask(path: str) -> tuple[list[dict[str, Any]], str]:
    """What pip-audit says of each package, or nothing and the reason."""
    answer = subprocess.run([sys.executable, *COMMAND, path], capture_output=True, text=True, check=False)
    try:
        packages: list[dict[str, Any]] = json.loads(answer.stdout)["dependencies"]
    except ValueError:
        return [], (answer.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]
    return packages, ""


def main(path: str) -> int:
    """Report; 1 when a pinned version is known to be vulnerable."""
    packages, reason = ask(path)
    found = [(package, hole) for package in packages for hole in package.get("vulns", [])]
    for package, hole in found:
        fixed = ", ".join(hole["fix_versions"]) or "no release yet"
        print(f"audit: {package['name']} {package['version']}: {hole['id']} (fixed in: {fixed})")
    audited = sum("vulns" in package for package in packages)
    print(f"audit: {audited} of {len(packages)} packages looked up, {len(found)} vulnerabilities found")
    if audited == 0:
        reason = reason or next((package["skip_reason"] for package in packages), "")
        print(f"audit: NOT DONE, the advisory service gave no answer. {reason}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
