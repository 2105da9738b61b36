"""Decides from paired held-out losses whether a change earns its price. Does not know what the change is.

The rule and the simulations behind it: one-sided paired t at ``alpha / tests``, and a lower confidence bound above the
price. Significance alone lets useless growth through; a price alone lets luck through.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from esper.errors import ConfigurationError, EvaluateError


@dataclass(frozen=True)
class Verdict:
    """The outcome of one paired comparison, in the units of the losses.

    ``gain`` is the mean of (host - changed); ``lower`` its one-sided lower confidence bound at level ``alpha``;
    ``price`` what the bound must exceed; ``detectable`` the smallest gain that this many examples could have shown.
    ``unsettled``: the price is paid, but the host's own learning could explain the gain; only more steps can tell.
    """

    accepted: bool
    reason: str
    num_examples: int
    gain: float
    standard_error: float
    lower: float
    alpha: float
    price: float
    detectable: float
    host_loss: float
    unsettled: bool = False


@dataclass(frozen=True)
class Stake:
    """What one session of pruning may cost: the margin less what is ``spent``, shared among ``sessions`` to come."""

    spent: float = 0.0
    sessions: int = 1


WHOLE = Stake()


@dataclass(frozen=True)
class Judge:
    """Paired t at ``alpha / tests`` with a price.

    Args:
        alpha: probability of one or more false grafts in a whole run.
        tests: number of judgements among which ``alpha`` is shared; growth ends when they are used up.
        price: what growth must buy, as a share of the standard deviation of the held-out losses: once for being
            there at all, and once more for every doubling of the model's size (mean of parameters and multiply-adds).
        head_start: a gain that is no larger than this share of what the host has learned by itself during the trial
            may be one of speed alone: where the host will be soon. It is settled by looking again later.
        cut_alpha: level at which a site's own path may be declared unneeded. A wrong cut costs little, a missed
            one keeps dead weight, so it is not shared among the tests.
        margin: by how much the held-out loss may be higher after all that is pruned in a run, as a share of the
            standard deviation of the losses; by default what a graft must gain to be there at all.
        min_examples: fewer held-out examples than this are refused at once.
    """

    alpha: float = 0.01
    tests: int = 40
    price: float = 0.01
    head_start: float = 0.5
    cut_alpha: float = 0.025
    margin: float = 0.01
    min_examples: int = 30

    def __post_init__(self) -> None:
        if not (0 < self.alpha < 1 and 0 < self.cut_alpha < 1):
            raise ConfigurationError("alpha and cut_alpha must lie between 0 and 1")
        if self.tests < 1 or min(self.price, self.head_start, self.margin) < 0 or self.min_examples < 2:
            raise ConfigurationError(
                "tests must be >= 1, price, head_start and margin >= 0, and min_examples >= 2"
            )

    def graft(
        self, host: NDArray[np.float64], grafted: NDArray[np.float64], *, growth: float, progress: float = 0.0
    ) -> Verdict:
        """Whether a graft that makes the model ``growth`` times larger (1.0: no larger) earns its price.

        ``progress`` is by how much the host's own mean loss has fallen while the graft was on trial.
        """
        spread = float(np.std(host)) if bool(np.all(np.isfinite(host))) else math.nan
        price = self.price * spread * (1.0 + math.log2(max(growth, 1.0)))
        verdict = self._compare(host, grafted, self.alpha / self.tests, price)
        return self._doubted(verdict, progress) if verdict.accepted else verdict

    def cut(self, host: NDArray[np.float64], without: NDArray[np.float64]) -> Verdict:
        """Whether the model is better off without a path: the lower bound at ``cut_alpha`` must exceed zero."""
        return self._compare(host, without, self.cut_alpha, 0.0)

    def prune(
        self, host: NDArray[np.float64], without: NDArray[np.float64], *, stake: Stake = WHOLE, looks: int = 1
    ) -> Verdict:
        """Whether the model without a part is as good as with it: a test of equivalence, not of a difference.

        That no loss can be shown proves nothing: few examples never show one. So the burden lies on the part's removal:
        the upper confidence bound of what the loss rises by must lie below what ``stake`` leaves of the margin
        (``gain``, ``lower`` and ``price`` are these with the sign turned: a gain of more than minus the margin). Of
        ``looks`` nested parts the largest that passes may go, hence ``cut_alpha / looks``. ``host`` are the losses
        before anything was pruned in this session: many parts that cost little each cost much together.
        """
        spread = float(np.std(host)) if bool(np.all(np.isfinite(host))) else math.nan
        margin = max(self.margin * spread - stake.spent, 0.0) / stake.sessions
        verdict = self._compare(host, without, self.cut_alpha / looks, -margin)
        equal = bool(np.array_equal(host, without)) and math.isfinite(spread)
        accepted = verdict.accepted or equal
        return replace(verdict, accepted=accepted, reason=_explain_increase(verdict, margin))

    def hopeless(self, host: NDArray[np.float64], changed: NDArray[np.float64]) -> bool:
        """Whether even an optimistic bound (mean + 2 standard errors) shows no gain; used to end a trial early."""
        difference = _paired(host, changed)
        if difference is None:
            return True
        return bool(difference.mean() + 2.0 * difference.std(ddof=1) / math.sqrt(len(difference)) <= 0.0)

    def _doubted(self, verdict: Verdict, progress: float) -> Verdict:
        if verdict.lower > self.head_start * progress:
            return verdict
        reason = (
            f"gain {verdict.gain:.4g} may be speed alone: the host learned {progress:.4g} in the meantime"
        )
        return replace(verdict, accepted=False, unsettled=True, reason=reason)

    def _compare(
        self, host: NDArray[np.float64], changed: NDArray[np.float64], alpha: float, price: float
    ) -> Verdict:
        difference = _paired(host, changed)
        count = len(host)
        if difference is None:
            return _not_finite(count, alpha, price, float(np.mean(host)))
        gain = float(difference.mean())
        error = float(difference.std(ddof=1)) / math.sqrt(count)
        critical = -float(stdtrit(count - 1, alpha))
        lower = gain - critical * error
        accepted = lower > price
        return Verdict(
            accepted=accepted,
            reason=_explain(gain, lower, price, count),
            num_examples=count,
            gain=gain,
            standard_error=error,
            lower=lower,
            alpha=alpha,
            price=price,
            detectable=price + critical * error,
            host_loss=float(np.mean(host)),
        )


def _paired(host: NDArray[np.float64], changed: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Differences by example, or None if a loss is not finite. Raises EvaluateError when their numbers differ."""
    if host.shape != changed.shape:
        raise EvaluateError(
            f"evaluate returned {len(host)} losses and then {len(changed)}: it must go through the same held-out "
            "examples in the same order at every call"
        )
    finite = bool(np.all(np.isfinite(host)) and np.all(np.isfinite(changed)))
    return host - changed if finite else None


def _explain(gain: float, lower: float, price: float, count: int) -> str:
    if lower > price:
        return f"gain {gain:.4g}, at least {lower:.4g}, above the price {price:.4g}"
    if gain <= price:
        return f"gain {gain:.4g} does not reach the price {price:.4g}"
    least = price + gain - lower
    return (
        f"gain {gain:.4g} is above the price {price:.4g}, but {count} examples show only {least:.4g} or more"
    )


def _explain_increase(verdict: Verdict, margin: float) -> str:
    if math.isnan(verdict.gain):
        return verdict.reason
    above = "at most" if -verdict.lower <= margin else "it could be more than"
    return (
        f"held-out loss {-verdict.gain:+.3g}, {above} the margin {margin:.3g} (up to {-verdict.lower:+.3g})"
    )


def _not_finite(count: int, alpha: float, price: float, host_loss: float) -> Verdict:
    nan = float("nan")
    reason = "the held-out loss became infinite or undefined"
    return Verdict(False, reason, count, nan, nan, nan, alpha, price, nan, host_loss)
