"""One table a network: what each class's row costs the others, what it leaves of the class, and what a linear probe still finds."""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import nn
from torch.utils.data import Dataset

from wfnb.metrics.probe import linear_probe_recall
from wfnb.metrics.retain_forget import accuracy_from_counts, class_counts, predict
from wfnb.metrics.scores import each_row, probe_recalls, row_counts
from wfnb.net import WFNet
from wfnb.originals.data import together
from wfnb.originals.features import collect_features

__all__ = ["class_table"]


def class_table(
    wf: WFNet, original: nn.Module, train: Dataset, test: Dataset, classes: Sequence[int] | None = None
) -> pd.DataFrame:
    """Each class's row beside the original, in percent, one line a class: Acc_r, Acc_f, and the linear probe's recall of that class.

    Args:
        original: The network that ``wf`` wraps.
        train: Images that the probe is fitted on, of all classes.
        test: Images that everything is measured on; every class must occur.
        classes: The rows to look at; all where left out.

    Raises:
        ValueError: A class has no test image.
    """
    k = wf.num_classes
    classes = list(range(k)) if classes is None else list(classes)
    images, labels = together(test, next(wf.parameters()).device)
    as_trained = class_counts(labels, predict(original, images).argmax(1), k).expand(len(classes), -1, -1)
    before = accuracy_from_counts(as_trained.cpu(), classes)
    after = accuracy_from_counts(
        torch.stack([row_counts(wf, c, None, images, labels)[0] for c in classes]).cpu(), classes
    )
    found = linear_probe_recall(*(collect_features(original, part, k) for part in (train, test)))
    columns = {
        "acc_r_original_pct": 100 * before.acc_r_per_class,
        "acc_r_pct": 100 * after.acc_r_per_class,
        "acc_f_original_pct": 100 * before.acc_f_per_class,
        "acc_f_pct": 100 * after.acc_f_per_class,
        "probe_recall_original_pct": [100 * found[c] for c in classes],
        "probe_recall_pct": probe_recalls(each_row(wf, classes), train, test, k)[
            "probe_recall_per_class_pct"
        ],
    }
    return pd.DataFrame(columns, index=pd.Index([wf.class_names[c] for c in classes], name="class"))
