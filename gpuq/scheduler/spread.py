"""How far a run time, and what is foretold from it, may be off: the span in which four of five are expected to lie.

A run time: between the tenth and the ninetieth percentile of the runs it is expected from; of few runs, the prediction
interval of a log-normal distribution (Student's t on the logarithms; Hahn and Meeker, Statistical Intervals, 1991),
because the extremes of few runs are not far enough apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, sqrt
from typing import NamedTuple

# The share of what is foretold that lies within the span.
COVERED = 0.8
# As many runs as it takes to say anything of a kind of job.
ENOUGH = 3
# From so many runs on their own percentiles serve.
MANY = 10
# Student's t, 90th percentile, of 2, 3, … degrees of freedom.
_T90 = (1.886, 1.638, 1.533, 1.476, 1.440, 1.415, 1.397)
# No runs are so alike that the next could not be off by this share.
LEAST = 0.05
# How many times as long as it is expected to take a job may last of whose kind nothing is known.
UNKNOWN = 4.0


class Span(NamedTuple):
    """From when to when, or from how long to how long: seconds."""

    low: float
    high: float


def run_span(runs: Sequence[float], middle: float) -> Span:
    """For a run time that is expected to be `middle` from at least ENOUGH `runs`, in seconds."""
    count = len(runs)
    if count >= MANY:
        ordered = sorted(runs)
        low = ordered[max(0, int((1 - COVERED) / 2 * (count + 1)) - 1)]
        high = ordered[min(count - 1, int((1 + COVERED) / 2 * (count + 1)))]
    else:
        logs = [log(max(run, 1.0)) for run in runs]
        mean = sum(logs) / count
        deviation = sqrt(sum((one - mean) ** 2 for one in logs) / (count - 1))
        width = _T90[count - ENOUGH] * deviation * sqrt(1 + 1 / count)
        low, high = exp(mean - width), exp(mean + width)
    return Span(min(low, middle * (1 - LEAST)), max(high, middle * (1 + LEAST)))
