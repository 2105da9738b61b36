"""How long torch compiles, from one moment to another. Does not know why."""

from __future__ import annotations

import time
import weakref
from typing import Any

from torch._dynamo.callback import CompilationCallbackHandler, callback_handler


class Compilations:
    """Counts what torch compiles from its making until `stop`, in the whole process; ``seconds`` are of wall time."""

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        meter = weakref.ref(self)

        def begin(_: Any) -> None:
            watching = meter()
            if watching is not None:
                watching._began = time.perf_counter()

        def end(_: Any) -> None:
            watching = meter()
            if watching is not None:
                watching.count += 1
                watching.seconds += time.perf_counter() - watching._began

        self._began = time.perf_counter()
        callback_handler.register_start_callback(begin)
        callback_handler.register_end_callback(end)
        self._finalizer = weakref.finalize(self, _forget, callback_handler, begin, end)

    def stop(self) -> None:
        """Count no more."""
        self._finalizer()


def _forget(handler: CompilationCallbackHandler, begin: Any, end: Any) -> None:
    if begin in handler.start_callbacks:  # torch.compiler.reset() takes them out, too
        handler.remove_start_callback(begin)
        handler.remove_end_callback(end)
