"""Every exception that Esper raises on purpose. Knows nothing of what raises them.

EsperError
├── ConfigurationError        what the caller asked for cannot be
│   ├── RecipeError           a recipe that does not fit, is dead at birth, or explodes
│   ├── OptimizerError        an optimizer that cannot take new parameters
│   └── EvaluateError         ``evaluate`` does not return per-example losses
├── ClosureError              the closure changed the model, or returned no loss
├── SiteError                 a place in the network that cannot be grown
├── CheckpointError           a missing, damaged or foreign checkpoint
├── RankError                 another process of a distributed run has failed, is lost, or holds other weights
├── DataError                 a table or a task that cannot be trained on
├── AnalysisError             a series that is too short to conclude anything from
├── EmbeddingError            embeddings that do not come, or are none
├── RunError                  a run folder that cannot be read or written
├── TransferError             a file that cannot be imported into the memory
└── SettingsError             an environment variable that does not parse
"""

from __future__ import annotations


class EsperError(Exception):
    """Root of all errors raised on purpose; the message says what to do."""


class ConfigurationError(EsperError, ValueError):
    """The caller asked for something that cannot be."""


class RecipeError(ConfigurationError):
    """A recipe that does not fit its place, is dead at birth, or explodes."""


class OptimizerError(ConfigurationError):
    """An optimizer that cannot take new parameters."""


class EvaluateError(ConfigurationError):
    """``evaluate`` does not return one finite loss per held-out example."""


class ClosureError(EsperError):
    """The closure changed the model, or did not return a scalar loss."""


class SiteError(EsperError, ValueError):
    """A place in the network that cannot be grown."""


class CheckpointError(EsperError):
    """A checkpoint that is missing, damaged, or of another architecture."""


class RankError(EsperError):
    """Another process of a distributed run has failed, no longer answers, or holds other weights."""


class DataError(EsperError, ValueError):
    """A table or a task that cannot be trained on."""


class MemoryStoreError(EsperError):
    """A memory's database that cannot be opened, read or written; what was acknowledged before is still there."""


class EpisodeError(EsperError, ValueError):
    """A record of the memory that is not there, or not in the state that is asked for."""


class EmbeddingError(EsperError):
    """A provider of embeddings that does not answer in time, or not as asked; recall goes on by words."""


class AnalysisError(EsperError, ValueError):
    """A series that is too short to conclude anything from, or a question that it cannot answer."""


class TransferError(EsperError, ValueError):
    """A file that cannot be imported into the memory; its bad lines are named, and nothing of it was taken."""


class RunError(EsperError):
    """A run folder that cannot be read or written."""


class SettingsError(EsperError, ValueError):
    """An environment variable or settings file that does not parse."""
