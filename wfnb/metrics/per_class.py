"""A table for one network: with each class forgotten, the accuracies and the recall of a linear probe."""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import nn
from torch.utils.data import Dataset

from wfnb.metrics.probe import network_recall
from wfnb.metrics.retain_forget import accuracy_from_counts, class_counts
from wfnb.metrics.scores import each_row, probe_recalls, row_counts
from wfnb.net import WFNet
from wfnb.originals.images import together
from wfnb.originals.inference import predict

__all__ = ["class_table"]


def class_table(
    wf: WFNet, original: nn.Module, train: Dataset, test: Dataset, classes: Sequence[int] | None = None
) -> pd.DataFrame:
    """Acc_r, Acc_f and the probe's recall in percent, one line a forgotten class, each beside the original's.

    Args:
        original: The network that ``wf`` wraps.
        train: Images of all classes, on which the probe is fitted.
        test: Images on which everything is measured; every class must occur.
        classes: The classes to forget; default: all.

    Raises:
        ValueError: A class has no test image.
    """
    k = wf.num_classes
    classes = list(range(k)) if classes is None else list(classes)
    images, labels = together(test, next(wf.parameters()).device)
    original_counts = class_counts(labels, predict(original, images).argmax(1), k)
    before = accuracy_from_counts(original_counts.expand(len(classes), -1, -1).cpu(), classes)
    counts = [row_counts(wf, c, None, images, labels)[0] for c in classes]
    after = accuracy_from_counts(torch.stack(counts).cpu(), classes)
    recall = network_recall(original, train, test, k)
    columns = {
        "acc_r_original_pct": 100 * before.acc_r_per_class,
        "acc_r_pct": 100 * after.acc_r_per_class,
        "acc_f_original_pct": 100 * before.acc_f_per_class,
        "acc_f_pct": 100 * after.acc_f_per_class,
        "probe_recall_original_pct": [100 * recall[c] for c in classes],
        "probe_recall_pct": probe_recalls(each_row(wf, classes), train, test, k)[
            "probe_recall_per_class_pct"
        ],
    }
    return pd.DataFrame(columns, index=pd.Index([wf.class_names[c] for c in classes], name="class"))
