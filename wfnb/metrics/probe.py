"""Recall of a linear probe on the last features: it finds a class whose logit is merely hidden."""

import warnings

from torch import Tensor, nn
from torch.utils.data import Dataset

from wfnb.originals.features import collect_features

__all__ = ["linear_probe_recall", "network_recall"]


def linear_probe_recall(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> list[float]:
    """Recall of each class by a logistic regression on the last features.

    The probe (multinomial, L2 penalty with C = 1, features standardised on the training images) is fitted on
    the features of all K classes with their true labels, as anyone with the network and labelled images can
    do. The reference is a network retrained without the class, whose features separate the class to some
    extent, too. Masking a logit leaves the recall unchanged.

    Args:
        train: Features (N, D) and labels (N,) of training images, by a network with a class forgotten
            (``collect_features``).
        test: The same of test images.

    Returns:
        K recalls in [0, 1]; the one of the forgotten class is of interest.

    Raises:
        ValueError: A class has no test image.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    (x, y), (x_test, y_test) = ((f.double().numpy(), labels.numpy()) for f, labels in (train, test))
    classes = range(int(y.max()) + 1)
    empty = [c for c in classes if not (y_test == c).any()]
    if empty:
        raise ValueError(f"no test image of class {', '.join(map(str, empty))}: its recall is not defined.")
    mean, std = x.mean(0), x.std(0) + 1e-6
    probe = LogisticRegression(max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit((x - mean) / std, y)
    right = probe.predict((x_test - mean) / std) == y_test
    return [float(right[y_test == c].mean()) for c in classes]


def network_recall(network: nn.Module, train: Dataset, test: Dataset, num_classes: int) -> list[float]:
    """``linear_probe_recall`` on the last features of ``network`` for ``train`` and ``test``."""
    features = [collect_features(network, part, num_classes) for part in (train, test)]
    return linear_probe_recall(*features)
