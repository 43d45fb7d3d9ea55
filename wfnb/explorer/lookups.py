"""Look-ups: the results with some classes forgotten and some gates re-opened, from tables computed once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from wfnb.explorer.tables import SHARES, Bar, combined, compute_tables, logits_by_share, tallied
from wfnb.metrics.retain_forget import predict
from wfnb.net import WFNet
from wfnb.originals.images import ImageData, ImageSet
from wfnb.progress import Progress

__all__ = ["SHARES", "Lookups", "Outcome"]

IN_PASSING = 1000  # test images that are scored at once when a share is chosen
LAST = len(SHARES) - 1  # all gates re-opened: the original network
NOT_MEASURED = (
    "Accuracies, bars and matrices are hidden: on this test set ({images:,} images) they are measured only "
    "with 0 % and with 100 % of the gates re-opened."
)
NO_TEST_SET = "Accuracies, bars and matrices are hidden, because they need the test set: {error}"


@dataclass(frozen=True)
class Outcome:
    """The results with some classes forgotten at once; without classes, those of the original network.

    Attributes:
        classes: The forgotten classes, sorted.
        at: The share of gates re-opened, as an index in ``SHARES``.
        logits: (P, S, K), of the S shown images at each of the P shares.
        counts: (K, K), the confusion matrix of the test set at this share; ``None`` if it is not measured.
        zrf: ZRF of the test images of these classes; NaN without a class or a random network.
        note: Why ``counts`` is ``None``, in one sentence.
    """

    classes: tuple[int, ...]
    at: int
    logits: Tensor
    counts: Tensor | None
    zrf: float = float("nan")
    note: str = ""

    @property
    def acc_r_pct(self) -> float:
        """Accuracy on the images of all other classes, in percent; NaN if it is not measured."""
        k = self.logits.shape[2]
        return _accuracy(self.counts, [c for c in range(k) if c not in self.classes])

    @property
    def acc_f_pct(self) -> float:
        """Accuracy on the images of the forgotten classes, in percent; NaN without a class."""
        return _accuracy(self.counts, self.classes)

    @property
    def per_class_pct(self) -> Tensor:
        """(K,), accuracy of each class in percent."""
        if self.counts is None:
            return torch.full((self.logits.shape[2],), torch.nan, dtype=torch.float64)
        counts = self.counts.double()
        return 100 * counts.diagonal() / counts.sum(1)


def _accuracy(counts: Tensor | None, classes: Sequence[int]) -> float:
    if counts is None:
        return float("nan")
    own = counts[list(classes)].double()
    return 100 * float(own[range(len(classes)), list(classes)].sum() / own.sum())


class Lookups:
    """The tables of one network on one data set.

    Args:
        wf: The network with its rows.
        data: The data set; its test split is shown and scored.
        random_model: The architecture freshly initialised, the reference of ZRF; ZRF is NaN without it.
        tables: As ``compute_tables`` gives them; computed by default.
        load_test: Gives the test split when classes are chosen that ``tables`` do not hold; ``data.test`` by
            default.
        bar: Called as ``bar(items, title)``; iterates over the items and shows the progress.

    Attributes:
        images, labels: The S shown test images, normalised, and their classes.
        exciting: Layer name to (C_out, 6): for each filter, the pictures that activate it most.
    """

    def __init__(
        self,
        wf: WFNet,
        data: ImageData,
        random_model: nn.Module | None = None,
        *,
        tables: Mapping[str, Tensor] | None = None,
        load_test: Callable[[], ImageSet] | None = None,
        bar: Bar = Progress,
    ) -> None:
        self.wf, self.data, self.bar = wf, data, bar
        self._random_model, self._load_test = random_model, load_test or (lambda: data.test)
        self._tables = compute_tables(wf, data, random_model, bar) if tables is None else tables
        device = next(wf.parameters()).device
        self._pictures = ImageSet(self._tables["images"], self._tables["labels"], data.mean, data.std)
        shown = self._pictures.subset(self._tables["shown"].long()).to(device)
        self.images, self.labels = shown.all()[0], shown.labels.cpu()
        self.exciting = {name: self._tables[f"exciting.{name}"].long() for name in wf.filters}
        self._outcomes: dict[tuple[tuple[int, ...], int], Outcome] = {}
        self._logits: dict[tuple[int, ...], Tensor] = {}
        self._test: ImageSet | None = None

    def outcome(self, classes: Iterable[int], at: int = 0) -> Outcome:
        """The results with ``classes`` forgotten and a share of gates re-opened.

        Looked up where the tables hold them, else computed at the first call. For a share between 0 and 1
        they are computed only if the test set is small.

        Args:
            at: The share, as an index in ``SHARES``.

        Raises:
            ValueError: All classes are chosen.
            IndexError: There is no such class.
        """
        chosen = tuple(sorted(set(classes)))
        key = (chosen, at if chosen else 0)
        if key not in self._outcomes:
            self._outcomes[key] = self._outcome(*key)
        return self._outcomes[key]

    def original(self, classes: Iterable[int] = (), at: int = 0) -> Outcome:
        """The results of the original network, scored as if ``classes`` were forgotten."""
        chosen, counts = tuple(sorted(set(classes))), self._tables["original_counts"]
        score = float("nan")
        if chosen:  # ZRF is a mean over images, so that of several classes is their weighted mean
            images = counts[list(chosen)].sum(1).double()
            score = float((self._tables["original_zrf"][list(chosen)] * images).sum() / images.sum())
        logits = self._tables["original"].expand(len(SHARES), -1, -1)
        return Outcome(chosen, at, logits, counts, score)

    def logits(self, images: Tensor, classes: Sequence[int], bar: Bar | None = None) -> Tensor:
        """Logits (P, N, K) of any images with ``classes`` forgotten, at each share of gates re-opened."""
        if not classes:
            return predict(self.wf, images).cpu().expand(len(SHARES), -1, -1)
        wf = self.wf if len(classes) == 1 else combined(self.wf, classes)
        return logits_by_share(wf, images, [classes[0]], bar)[0]

    def picture(self, index: Tensor) -> np.ndarray:
        """The pixels to show of the pictures at ``index``."""
        return self.data.pixels(self._pictures.batch(index)[0])

    def picture_label(self, index: int) -> str:
        """The class name of a picture."""
        return self.data.class_names[int(self._pictures.labels[index])]

    def _outcome(self, chosen: tuple[int, ...], at: int) -> Outcome:
        k = self.data.num_classes
        for c in chosen:
            if not 0 <= c < k:
                raise IndexError(f"no class {c}: a class is a whole number from 0 to {k - 1}.")
        if len(chosen) == k:
            raise ValueError(f"All {k} classes cannot be forgotten at once: leave at least one.")
        if not chosen:
            return self.original()
        counts, score, note = self._scores(chosen, at)
        return Outcome(chosen, at, self._shown_logits(chosen), counts, score, note)

    def _shown_logits(self, chosen: tuple[int, ...]) -> Tensor:
        if len(chosen) == 1 and "logits" in self._tables:
            return self._tables["logits"][chosen[0]]
        if chosen not in self._logits:
            self._logits[chosen] = self.logits(self.images, chosen, self.bar)
        return self._logits[chosen]

    def _scores(self, chosen: tuple[int, ...], at: int) -> tuple[Tensor | None, float, str]:
        """The confusion matrix, the ZRF, and why there are none."""
        if at == LAST:
            original = self.original(chosen)
            return original.counts, original.zrf, ""
        if len(chosen) == 1 and "counts" in self._tables and self._tables["counts"][chosen[0], at, 0, 0] >= 0:
            return self._tables["counts"][chosen[0], at], float(self._tables["zrf"][chosen[0], at]), ""
        images = int(self._tables["original_counts"].sum())
        if at and images > IN_PASSING:
            return None, float("nan"), NOT_MEASURED.format(images=images)
        try:
            test = self._test_set()
        except FileNotFoundError as error:
            return None, float("nan"), NO_TEST_SET.format(error=error)
        tally = tallied(self.wf, chosen, SHARES[at], test, self.bar if images > IN_PASSING else None)
        random = None
        if self._random_model is not None:
            own = torch.isin(test.labels, torch.tensor(chosen, device=test.labels.device))
            random = predict(self._random_model, test.batch(own)[0]).cpu()
        return tally.counts, tally.zrf(random), ""

    def _test_set(self) -> ImageSet:
        if self._test is None:
            for _ in self.bar([0], f"reading {self.data.name} (downloaded if it is missing)"):
                self._test = self._load_test()
        assert self._test is not None
        return self._test
