"""What a linear probe still finds: accuracy alone cannot tell forgetting from hiding a logit."""

import warnings

import torch
from torch import Tensor

__all__ = ["linear_probe_recall"]


def linear_probe_recall(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], forgotten: int) -> float:
    """Recall of the forgotten class by a logistic regression on the last features.

    The probe (multinomial, L2 of C = 1, features standardised on the training images) is fitted on features of all K classes with their
    true labels: whoever holds the network and labelled images could do the same. A network that was retrained without the class is the
    reference: its features tell the class apart to some extent, too. Masking a logit leaves the recall as it was.

    Args:
        train: Features (N, D) and labels (N,) of training images, computed by the network with the class forgotten.
        test: The same of test images.
        forgotten: The class whose recall is measured.

    Returns:
        A share in [0, 1]: of the test images of the class, those that the probe calls so.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    (x, y), (x_test, y_test) = ((f.double().numpy(), labels.numpy()) for f, labels in (train, test))
    mean, std = x.mean(0), x.std(0) + 1e-6
    probe = LogisticRegression(max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit((x - mean) / std, y)
    own = y_test == forgotten
    if not own.any():
        raise ValueError(f"no test image of class {forgotten}: its recall is not defined.")
    return float((probe.predict((x_test[own] - mean) / std) == forgotten).mean())
