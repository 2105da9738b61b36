"""Runs jobs side by side, one thread each. Does not know what they do."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.arms import Row


@dataclass(frozen=True)
class Job:
    """A picklable piece of work and the name it is reported under."""

    name: str
    work: Callable[[], list[Row]]


def run_jobs(jobs: Sequence[Job], *, num_workers: int) -> list[Row]:
    """All rows, in the order of the jobs. The first failure is raised and ends the rest."""
    if num_workers <= 1:
        torch.set_num_threads(1)
        return [row for job in jobs for row in _reported(job, job.work())]
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        num_workers, mp_context=context, initializer=partial(torch.set_num_threads, 1)
    ) as pool:
        futures = {pool.submit(job.work): job for job in jobs}
        for future in as_completed(futures):
            _reported(futures[future], future.result())
        return [row for future in futures for row in future.result()]


def _reported(job: Job, rows: list[Row]) -> list[Row]:
    for row in rows:
        print(
            f"  {job.name}: {row.arm} {row.test_accuracy:.4f} ({row.seconds:.0f} s) {row.note}",
            file=sys.stderr,
        )
    return rows
