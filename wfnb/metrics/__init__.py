"""The paper's metrics, and what accuracy does not see: linear probes, relearning, insertion and deletion."""

from wfnb.metrics.insertion import InsertionDeletion, insertion_deletion
from wfnb.metrics.per_class import class_table
from wfnb.metrics.probe import linear_probe_recall
from wfnb.metrics.relearn import (
    RelearnTime,
    relearn_curves,
    relearn_summary,
    relearn_time,
    relearn_times,
)
from wfnb.metrics.retain_forget import RetainForget, retain_forget_accuracy
from wfnb.metrics.scores import (
    class_accuracy,
    each_row,
    forgetting_scores,
    original_scores,
    pair_scores,
    probe_recalls,
    probe_scores,
    shuffle_scores,
    unlearning_scores,
)
from wfnb.metrics.zrf import zrf
from wfnb.originals.inference import accuracy, predict

__all__ = [
    "InsertionDeletion",
    "RelearnTime",
    "RetainForget",
    "accuracy",
    "class_accuracy",
    "class_table",
    "each_row",
    "forgetting_scores",
    "insertion_deletion",
    "linear_probe_recall",
    "original_scores",
    "pair_scores",
    "predict",
    "probe_recalls",
    "probe_scores",
    "relearn_curves",
    "relearn_summary",
    "relearn_time",
    "relearn_times",
    "retain_forget_accuracy",
    "shuffle_scores",
    "unlearning_scores",
    "zrf",
]
