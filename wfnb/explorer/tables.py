"""The tables behind the explorer, computed once so that moving the slider only looks up.

- for each class and each share of gates re-opened, the logits of a few test images;
- for each class, the confusion matrix and the ZRF of the whole test set, as in ``metrics.json``;
- for each filter, the test images that activate it most;
- the pixels of these images, so that the page needs no data set.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from wfnb.layers import WFConv2d
from wfnb.metrics.retain_forget import class_counts, predict
from wfnb.metrics.zrf import zrf
from wfnb.net import WFNet
from wfnb.originals.images import ImageData, ImageSet, images_a_pass

__all__ = [
    "SHARES", "Bar", "Tally", "combined", "compute_tables", "exciting_images", "logits_by_share", "reopened",
    "tallied",
]  # fmt: skip

SHARES = tuple(i / 10 for i in range(11))  # of gates re-opened
SHOWN = 40  # images in the grid
SEARCHED = 250  # test images searched for those that activate a filter most
LARGEST = 2**24  # entries of a table of all classes; above this, a class is computed when it is chosen

Bar = Callable[[Sequence, str], Iterable]  # iterates over items and shows progress under a title


class Tally:
    """The confusion matrix of a network, and the ZRF of its forgotten images, batch by batch.

    Args:
        classes: The forgotten classes.
        num_classes: K.
    """

    def __init__(self, classes: Iterable[int], num_classes: int) -> None:
        self.classes = torch.tensor(sorted(classes))
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self._own: list[Tensor] = []

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: logits (B, K), labels (B,)."""
        logits, labels = logits.cpu(), labels.cpu()
        self.counts += class_counts(labels, logits.argmax(1), len(self.counts))
        self._own.append(logits[torch.isin(labels, self.classes)])

    def zrf(self, random_logits: Tensor | None) -> float:
        """ZRF of the images of the forgotten classes; NaN without ``random_logits`` of these images."""
        return float("nan") if random_logits is None else zrf(torch.cat(self._own), random_logits)


@contextmanager
def reopened(wf: WFNet, share: float) -> Iterator[WFNet]:
    """Within the context, ``share`` of the gates of every row and layer are 1, the lowest alpha first."""
    saved = {name: table.detach().clone() for name, table in wf.alphas().items()}
    try:
        with torch.no_grad():
            for name, table in wf.alphas().items():
                count = int(share * table.shape[1] + 0.5)  # rounded as in the insertion metric
                lowest = saved[name].argsort(dim=1, stable=True)[:, :count]
                table.scatter_(1, lowest, torch.inf)  # sigmoid(inf) is exactly 1
        yield wf
    finally:
        with torch.no_grad():
            for name, table in wf.alphas().items():
                table.copy_(saved[name])


def combined(wf: WFNet, classes: Sequence[int]) -> WFNet:
    """A copy whose row ``classes[0]`` holds the lowest gates of ``classes``, as for ``forget={...}``."""
    wf = copy.deepcopy(wf)
    with torch.no_grad():
        for table in wf.alphas().values():
            table[classes[0]] = table[list(classes)].amin(0)
    return wf


@torch.inference_mode()
def logits_by_share(
    wf: WFNet, images: Tensor, rows: Sequence[int], bar: Bar | None = None, batch_size: int = 500
) -> Tensor:
    """Logits (len(rows), P, N, K) of ``images`` (N, C, H, W) for each row and each of ``SHARES``."""
    row = torch.tensor(rows, device=images.device).repeat_interleave(len(images))
    index = torch.arange(len(images), device=images.device).repeat(len(rows))
    batches = list(zip(index.split(batch_size), row.split(batch_size), strict=True))
    tables = []
    for share in SHARES if bar is None else bar(SHARES, "shown images, share by share of gates re-opened"):
        with reopened(wf, share):
            logits = torch.cat([wf(images[i], forget=r).float() for i, r in batches])
        tables.append(logits.view(len(rows), len(images), -1))
    return torch.stack(tables, 1).cpu()


@torch.inference_mode()
def exciting_images(wf: WFNet, images: Tensor, count: int = 6, batch_size: int = 100) -> dict[str, Tensor]:
    """Indices (C_out, count) by layer name of the ``images`` that activate each filter of the original most.

    The activation is the mean of the positive outputs over pixels or tokens.
    """
    means: dict[str, list[Tensor]] = {name: [] for name in wf.filters}

    def record(name: str, layer: nn.Module):
        places = (2, 3) if isinstance(layer, WFConv2d) else 1  # pixels of (B, C, H, W), tokens of (B, N, F)
        return layer.register_forward_hook(
            lambda module, args, out: means[name].append(out.relu().mean(places).float().cpu())
        )

    hooks = [record(name, layer) for name, layer in wf.filters.items()]
    try:
        for batch in images.split(batch_size):
            wf(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: torch.cat(parts).topk(min(count, len(images)), dim=0).indices.T.contiguous()
        for name, parts in means.items()
    }


def tallied(wf: WFNet, classes: Sequence[int], share: float, test: ImageSet, bar: Bar | None = None) -> Tally:
    """The tally of the test set with ``classes`` forgotten and ``share`` of the gates re-opened."""
    network = wf if len(classes) == 1 else combined(wf, classes)
    tally, parts = Tally(classes, wf.num_classes), _parts(test)
    with reopened(network, share), network.forgetting(classes[0]):
        for part in parts if bar is None else bar(parts, "test images"):
            images, labels = test.batch(part)
            tally.add(predict(network, images), labels)
    return tally


def _parts(test: ImageSet) -> list[slice]:
    """The test set in batches as ``predict`` makes them."""
    size = images_a_pass(test.batch(slice(1))[0])
    return [slice(start, start + size) for start in range(0, len(test), size)]


def compute_tables(wf: WFNet, data: ImageData, random_model: nn.Module | None, bar: Bar) -> dict[str, Tensor]:
    """All tables of a network on the test split of ``data``.

    Args:
        random_model: The architecture freshly initialised, the reference of ZRF; no ZRF without it.

    Returns:
        By name, of K classes, P shares, S shown images and M pictures (the shown images, and those that
        activate a filter most):

        - ``images`` (M, C, H, W), uint8, and ``labels`` (M,); ``shown`` (S,), positions in them;
        - ``exciting.LAYER`` (C_out, 6), positions in them;
        - ``original`` (S, K), logits; ``original_counts`` (K, K), ``original_zrf`` (K,);
        - unless K is large, ``logits`` (K, P, S, K), ``counts`` (K, P, K, K) and ``zrf`` (K, P), where -1 and
          NaN mean not measured: only the share 0 is.
    """
    test, k = data.test, data.num_classes
    tallies = [Tally([c], k) for c in range(k)]
    random: list[Tensor] = []
    for part in bar(_parts(test), "test images, original network"):
        images, labels = test.batch(part)
        logits = predict(wf, images)
        for tally in tallies:
            tally.add(logits, labels)
        if random_model is not None:
            random.append(predict(random_model, images).cpu())
    own_random = [torch.cat(random)[test.labels.cpu() == c] if random else None for c in range(k)]
    shown = _first_of_each_class(test.labels.cpu(), SHOWN)
    tables = _pictures(wf, test, shown)
    images = test.batch(shown)[0]
    tables["original"] = predict(wf, images).cpu()
    tables["original_counts"] = tallies[0].counts.int()
    tables["original_zrf"] = _zrf_of(tallies, own_random)
    if k * len(SHARES) * k * max(len(shown), k) <= LARGEST:
        tables["logits"] = logits_by_share(wf, images, range(k), bar)
        tallies = [Tally([c], k) for c in range(k)]
        for c, part in bar([(c, p) for c in range(k) for p in _parts(test)], "test images, class by class"):
            images, labels = test.batch(part)
            with wf.forgetting(c):
                tallies[c].add(predict(wf, images), labels)
        tables["counts"] = torch.full((k, len(SHARES), k, k), -1, dtype=torch.int32)
        tables["counts"][:, 0] = torch.stack([tally.counts for tally in tallies]).int()
        tables["zrf"] = torch.full((k, len(SHARES)), torch.nan, dtype=torch.float64)
        tables["zrf"][:, 0] = _zrf_of(tallies, own_random)
    return tables


def _zrf_of(tallies: Sequence[Tally], random: Sequence[Tensor | None]) -> Tensor:
    scores = [tally.zrf(own) for tally, own in zip(tallies, random, strict=True)]
    return torch.tensor(scores, dtype=torch.float64)


def _pictures(wf: WFNet, test: ImageSet, shown: Tensor) -> dict[str, Tensor]:
    """The tables of pictures: ``images``, ``labels``, ``shown`` and ``exciting.LAYER``."""
    exciting = exciting_images(wf, test.batch(slice(SEARCHED))[0])
    used, places = torch.cat([shown, *(index.flatten() for index in exciting.values())]).unique(
        return_inverse=True
    )
    tables = {"images": test.images[used].cpu(), "labels": test.labels[used].cpu()}
    sizes = [index.numel() for index in exciting.values()]
    tables["shown"], *parts = places.split([len(shown), *sizes])
    for (name, index), part in zip(exciting.items(), parts, strict=True):
        tables[f"exciting.{name}"] = part.view_as(index).to(torch.int16)
    return tables


def _first_of_each_class(labels: Tensor, count: int) -> Tensor:
    """Indices of about ``count`` images, sorted by class: the first images of each class, equally many."""
    classes = labels.unique()
    each = max(count // len(classes), 1)
    return torch.cat([(labels == c).nonzero().flatten()[:each] for c in classes[:count]])
