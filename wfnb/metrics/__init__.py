"""The metrics of the paper, and those that accuracy does not see."""

from wfnb.metrics.accuracy import RetainForget, retain_forget_accuracy
from wfnb.metrics.probe import linear_probe_recall
from wfnb.metrics.zrf import zrf

__all__ = ["RetainForget", "linear_probe_recall", "retain_forget_accuracy", "zrf"]
