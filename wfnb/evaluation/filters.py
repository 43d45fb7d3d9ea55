"""Which filters belong to which classes (paper, "Filter visualizations", Figures 3 and 4): numbers from the tables of gates.

A filter is an output channel of a convolution, or an output feature of a ``qkv`` projection. A row holds the filters of its lowest gates
most responsible for its class. The paper takes the ten lowest of each class and keeps those that at least two classes share.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from wfnb.net import WFNet

__all__ = [
    "alpha_tables",
    "channel_means",
    "expected_shared",
    "filter_names",
    "heads_of",
    "most_shared",
    "overlap_table",
    "qkv_parts",
    "rank_correlation",
    "row_similarity",
    "shared_filters",
    "top_filters",
]

QKV = ("q", "k", "v")


def alpha_tables(wf: WFNet) -> dict[str, np.ndarray]:
    """The tables of alpha (K, C_out) by layer as arrays, separate gates of biases aside."""
    return {name: layer.alpha.detach().cpu().numpy() for name, layer in wf.filters.items()}


def top_filters(table: np.ndarray, count: int = 10) -> np.ndarray:
    """(K, min(count, C)), the filters of the lowest alpha (or gates) of each row of ``table`` (K, C), lowest first, ties by index."""
    return np.argsort(table, axis=1, kind="stable")[:, :count]


def shared_filters(table: np.ndarray, count: int = 10, classes: int = 2) -> dict[int, list[int]]:
    """The filters among the ``count`` lowest gates of at least ``classes`` rows: by filter, the classes that share it, both ascending.

    >>> shared_filters(np.array([[0.1, 0.9, 0.2, 0.8], [0.9, 0.1, 0.2, 0.8]]), count=2)
    {2: [0, 1]}
    """
    top = top_filters(table, count)
    owners = {int(f): sorted(np.nonzero((top == f).any(1))[0].tolist()) for f in np.unique(top)}
    return {f: own for f, own in owners.items() if len(own) >= classes}


def expected_shared(chosen: Sequence[int], channels: int) -> float:
    """How many of ``channels`` filters would be shared if class c drew its ``chosen[c]`` of them at random.

    A filter is drawn by class c with ``p_c = chosen[c] / channels``, independently of the other classes, and shared where two or more draw it:
    ``channels (1 - prod_c (1 - p_c) - sum_c p_c prod_{d != c} (1 - p_d))`` filters in expectation.

    >>> expected_shared([2, 2], 4)  # channels p^2
    1.0
    """
    p = np.asarray(chosen, dtype=float) / channels
    exactly_one = sum(p[c] * np.prod(1 - np.delete(p, c)) for c in range(len(p)))
    return float(channels * (1 - np.prod(1 - p) - exactly_one))


def row_similarity(tables: Iterable[np.ndarray]) -> np.ndarray:
    """(K, K), the correlation (Pearson) of the rows of alpha, all layers' tables (K, C_l) side by side.

    What all rows close alike counts as well: the differences between pairs of classes tell more than the level.
    """
    return np.corrcoef(np.concatenate(list(tables), axis=1))


def rank_correlation(
    similarity: np.ndarray, confusion: np.ndarray, permutations: int = 999, seed: int = 0
) -> dict[str, float | int | None]:
    """Do classes that are confused have rows that are alike? Spearman's rank correlation over the pairs of different classes.

    Pairs that share a class are not independent, so the p-value is that of a permutation of the classes (Mantel's test, one-sided).

    Args:
        similarity: (K, K), symmetric.
        confusion: (K, K), counts of class y (row) taken for class p (column); a pair's confusion is the mean of both classes' shares.

    Returns:
        ``spearman`` and ``p`` (``None`` where one of both does not vary over pairs), and ``pairs_confused``, how many pairs are confused at all.
    """
    from scipy.stats import spearmanr

    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    share = (share + share.T) / 2
    upper = np.triu_indices(len(similarity), 1)
    x, y = similarity[upper], share[upper]
    found: dict[str, float | int | None] = {
        "spearman": None,
        "p": None,
        "pairs_confused": int((y > 0).sum()),
        "pairs": len(y),
    }
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return found
    rho, rng = spearmanr(x, y).statistic, np.random.default_rng(seed)
    as_high = 1
    for _ in range(permutations):
        order = rng.permutation(len(similarity))
        as_high += spearmanr(similarity[np.ix_(order, order)][upper], y).statistic >= rho
    return found | {"spearman": float(rho), "p": float(as_high / (permutations + 1))}


def most_shared(
    table: np.ndarray, heads: int | None = None, count: int = 10
) -> dict[str, tuple[int, list[int]]]:
    """The filter among the lowest of the most classes (the first of equals), by name: its number and those classes.

    For a projection, one of q, k and v each; a part that no class has among its lowest is left out.
    """
    names, shared = filter_names(table.shape[1], heads), shared_filters(table, count, classes=1)
    found = {}
    for part in _parts(table.shape[1], heads):
        inside = [f for f in shared if f in part]
        if inside:
            best = max(inside, key=lambda f: (len(shared[f]), -f))
            found[names[best]] = (best, shared[best])
    return found


def heads_of(model: nn.Module, layer: str) -> int | None:
    """How many heads the attention that the ``qkv`` projection ``layer`` belongs to has; ``None`` for a convolution."""
    return (
        getattr(model.get_submodule(layer.rpartition(".")[0]), "num_heads", None)
        if layer.endswith("qkv")
        else None
    )


def qkv_parts(table: np.ndarray, heads: int) -> dict[str, np.ndarray]:
    """The gates (K, 3 D) of a ``qkv`` projection as q, k and v, each (K, heads, D / heads): timm's order of its output features."""
    parts = table.reshape(len(table), 3, heads, -1)
    return {name: parts[:, i] for i, name in enumerate(QKV)}


def filter_names(channels: int, heads: int | None = None) -> list[str]:
    """What to call the filters: their number, or part, head and number within the head for a ``qkv`` projection.

    >>> filter_names(12, heads=2)[:5]
    ['q0.0', 'q0.1', 'q1.0', 'q1.1', 'k0.0']
    """
    if heads is None:
        return [str(i) for i in range(channels)]
    width = channels // 3 // heads
    return [f"{part}{head}.{i}" for part in QKV for head in range(heads) for i in range(width)]


def overlap_table(tables: Mapping[str, np.ndarray], model: nn.Module, count: int = 10) -> pd.DataFrame:
    """Per layer: its filters, those that at least two classes share among their ``count`` lowest, the same by chance, and which.

    By chance, a class takes as many filters of a convolution, or of q, k and v each, as it does in truth, but which ones is drawn.
    """
    rows = []
    for layer, table in tables.items():
        heads = heads_of(model, layer)
        names, shared, top = (
            filter_names(table.shape[1], heads),
            shared_filters(table, count),
            top_filters(table, count),
        )
        parts = _parts(table.shape[1], heads)
        by_chance = sum(
            expected_shared(((top >= part[0]) & (top <= part[-1])).sum(1), len(part)) for part in parts
        )
        which = {names[f]: own for f, own in shared.items()}
        rows.append(
            {
                "layer": layer,
                "filters": table.shape[1],
                "shared": len(shared),
                "shared_by_chance": by_chance,
                "which": which,
            }
        )
    return pd.DataFrame(rows).set_index("layer")


def _parts(channels: int, heads: int | None) -> list[range]:
    """The filters of a convolution, or of q, k and v apart."""
    width = channels if heads is None else channels // 3
    return [range(start, start + width) for start in range(0, channels, width)]


@torch.inference_mode()
def channel_means(wf: WFNet, layer: str, images: Tensor, batch_size: int = 500) -> Tensor:
    """(N, C), how strongly each filter of ``layer`` answers to each image in the original network.

    The mean over the positions (of a convolution) or tokens (of a projection) of the layer's output, before any norm or activation.
    """
    held: list[Tensor] = []

    def keep(module: nn.Module, args: tuple, output: Tensor) -> None:
        held.append(output.mean((2, 3)) if output.ndim == 4 else output.mean(1))

    handle = wf.filters[layer].register_forward_hook(keep)
    try:
        with wf.forgetting(None):
            for start in range(0, len(images), batch_size):
                wf(images[start : start + batch_size])
    finally:
        handle.remove()
    return torch.cat(held)
