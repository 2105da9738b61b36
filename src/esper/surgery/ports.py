"""Reads a tensor at a module as a port: vector, sequence, signal or image. Does not know sites."""

from __future__ import annotations

from torch import nn

from esper.surgery.site import Port
from esper.surgery.trace import RECURRENT_OR_ATTENTION, Call, TensorFacts, Trace

_FEATURES_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
)
_FEATURES_LAST = (nn.Linear, nn.Bilinear, nn.LayerNorm, nn.RMSNorm, nn.Embedding, *RECURRENT_OR_ATTENTION)


class Ports:
    """How the tensors of one traced pass are laid out."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._modules = dict(trace.model.named_modules())
        layers = [self._modules[call.module] for call in trace.calls]
        self._time_first = any(isinstance(m, RECURRENT_OR_ATTENTION) and not m.batch_first for m in layers)

    def read(self, call: Call, facts: TensorFacts) -> Port | str:
        """The port at a call's source or target, or in plain words why there is none."""
        dimensions = len(facts.shape)
        if dimensions == _unbatched(self._modules[call.module]):
            return "its tensors have no batch dimension"
        if dimensions == 2:
            return Port("vector", facts.shape[1:])
        if dimensions in (3, 4):
            last = self._features_last(call, dimensions)
            if dimensions == 4:
                return "its features come last in four dimensions" if last else Port("image", facts.shape[1:])
            return Port("signal", facts.shape[1:]) if last is False else self._sequence(call, facts.shape)
        return f"its tensors have {dimensions} dimension{'s' * (dimensions != 1)}"

    def _sequence(self, call: Call, shape: tuple[int, ...]) -> Port | str:
        batch_dim = self._batch_dim(self._modules[call.module], shape)
        if batch_dim is None:
            return f"none of its dimensions {shape} is the batch of {self._trace.batch_size}"
        return Port("sequence", shape[:batch_dim] + shape[batch_dim + 1 :], batch_dim)

    def _batch_dim(self, module: nn.Module, shape: tuple[int, ...]) -> int | None:
        if isinstance(module, RECURRENT_OR_ATTENTION):
            return 0 if module.batch_first else 1
        batch_size = self._trace.batch_size
        fitting = [dim for dim in (0, 1) if shape[dim] == batch_size]
        if fitting:
            return fitting[-1] if self._time_first else fitting[0]
        # Windows and heads are often folded into the batch.
        return 0 if shape[0] % batch_size == 0 else None

    def _features_last(self, call: Call, dimensions: int) -> bool | None:
        """Whether features are the last of so many, by the module, its neighbours upstream, then downstream."""
        within = self._modules[call.module].named_modules(prefix=call.module)
        own = {self._says(name, dimensions) for name, _ in within} - {None}
        if len(own) == 1:
            return own.pop()
        upstream = (other for other in self._trace.calls[::-1] if call.depends_on(other))
        downstream = (other for other in self._trace.calls if other.depends_on(call))
        found = (self._says(other.module, dimensions) for other in (*upstream, *downstream))
        return next((says for says in found if says is not None), None)

    def _says(self, name: str, dimensions: int) -> bool | None:
        """Whether features come last, in the eyes of one layer; a convolution knows only tensors like its own."""
        if isinstance(self._modules[name], _FEATURES_LAST):
            return True
        if not isinstance(self._modules[name], _FEATURES_FIRST):
            return None
        inputs = (call.source for call in self._trace.by_module.get(name, ()))
        return False if any(x is not None and len(x.shape) == dimensions for x in inputs) else None


def _unbatched(module: nn.Module) -> int | None:
    """Number of dimensions that the module takes for one example without a batch."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return len(module.kernel_size) + 1
    return 2 if isinstance(module, RECURRENT_OR_ATTENTION) else 1
