"""What a linear probe still finds: accuracy alone cannot tell forgetting from hiding a logit."""

import warnings

from torch import Tensor

__all__ = ["linear_probe_recall"]


def linear_probe_recall(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> list[float]:
    """Recall of each class by a logistic regression on the last features.

    The probe (multinomial, L2 of C = 1, features standardised on the training images) is fitted on features of all K classes with their
    true labels: whoever holds the network and labelled images could do the same. A network that was retrained without the class is the
    reference: its features tell the class apart to some extent, too. Masking a logit leaves the recall as it was.

    Args:
        train: Features (N, D) and labels (N,) of training images, computed by the network with a class forgotten (``collect_features``).
        test: The same of test images.

    Returns:
        K shares in [0, 1]: of the test images of each class, those that the probe calls so. The forgotten class's is the one to look at.

    Raises:
        ValueError: A class has no test image.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    (x, y), (x_test, y_test) = ((f.double().numpy(), labels.numpy()) for f, labels in (train, test))
    mean, std = x.mean(0), x.std(0) + 1e-6
    probe = LogisticRegression(max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit((x - mean) / std, y)
    right = probe.predict((x_test - mean) / std) == y_test
    empty = [c for c in range(int(y.max()) + 1) if not (y_test == c).any()]
    if empty:
        raise ValueError(f"no test image of class {', '.join(map(str, empty))}: its recall is not defined.")
    return [float(right[y_test == c].mean()) for c in range(int(y.max()) + 1)]
