"""The zero retrain forgetting score (paper, Eq. 4; Chundawat et al., AAAI 2023)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from wfnb.checks import check_choice

__all__ = ["zrf"]


@torch.no_grad()
def zrf(logits: Tensor, random_logits: Tensor, *, dialect: str = "paper") -> float:
    """How close the predictions on forgotten images are to those of a network that was never trained.

    ``ZRF = 1 - mean_i JS(p_i, q_i)``, with ``p = softmax(logits)``, ``q = softmax(random_logits)`` and the
    Jensen-Shannon divergence ``JS = 0.5 KL(p || m) + 0.5 KL(q || m)``, ``m = (p + q) / 2``, in nats, computed
    in log space in float64.

    Args:
        logits: (N, K), of the unlearned network on the N images of the forgotten class.
        random_logits: (N, K), of the same architecture freshly initialised, in eval mode, on the same images.
        dialect: ``"paper"``, the formula above; or ``"bad-teaching"``, the widely copied code of Chundawat et
            al.'s repository, which takes ``KL(m || p)`` and ``KL(m || q)`` and divides by N K, so that its
            values are close to 1.

    Returns:
        A score in [1 - ln 2, 1] = [0.3069, 1] for ``"paper"``; 1 if the predictions equal the random
        network's. One-hot against uniform gives 0.4744 for K = 10 and 0.3108 for K = 1,000.

    Raises:
        ValueError: The shapes are not both (N, K), there is no image, or the dialect is unknown.

    >>> round(zrf(torch.eye(10)[:1] * 1e4, torch.zeros(1, 10)), 4)
    0.4744
    """
    if logits.ndim != 2 or logits.shape != random_logits.shape or not len(logits):
        raise ValueError(
            "logits and random_logits must both be (N, K) with N of 1 or more, "
            f"not {tuple(logits.shape)} and {tuple(random_logits.shape)}."
        )
    check_choice("ZRF dialect", dialect, ["paper", "bad-teaching"])
    log_p, log_q = (F.log_softmax(x.double(), 1) for x in (logits, random_logits.to(logits.device)))
    log_m = torch.logaddexp(log_p, log_q) - torch.log(torch.tensor(2.0, dtype=torch.float64))
    if dialect == "paper":
        return float(1 - 0.5 * (_kl(log_p, log_m) + _kl(log_q, log_m)).mean())
    divergence = 0.5 * log_m.exp() * ((log_m - log_p) + (log_m - log_q))
    return float(1 - divergence.mean())


def _kl(log_p: Tensor, log_m: Tensor) -> Tensor:
    """KL(p || m) of each row (N,), in nats; a class of probability 0 (logit minus infinity) adds 0."""
    return torch.where(log_p == -torch.inf, 0, log_p.exp() * (log_p - log_m)).sum(1)
