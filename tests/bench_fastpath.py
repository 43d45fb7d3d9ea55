"""What each trick of ``wfnb.fastpath`` saves: the time without it over the time with it, by turns in one
process.

``make bench-fastpath`` keeps ``runs/bench/fastpath.json``. Memory is that of a step's tensors at their peak.
"""

import contextlib
import json
import statistics
from collections.abc import Callable, Iterator
from unittest import mock

import torch

from wfnb import fastpath
from wfnb.bench.goals import NETWORKS, Scale
from wfnb.bench.network import NetworkBench
from wfnb.bench.timing import count_calls, keep_freed_memory, paired
from wfnb.device import device_name
from wfnb.net import WFNet
from wfnb.paths import runs_folder, write_whole

DEVICE = torch.device("cpu")


class _PlainGated:
    """``_Gated`` by torch's own product and sum: autograd reaches alpha through ``scale`` and ``shift``."""

    @staticmethod
    def apply(out, logits, scale, shift, own_memory, overwritten):
        scale = scale.to(out.dtype)
        return out * scale if shift is None else torch.addcmul(shift.to(out.dtype), out, scale)


GATES = fastpath.FastPath.gates


def _layer_by_layer(path: fastpath.FastPath, choice) -> fastpath.FastGates:
    """``FastPath.gates``, one layer after the other."""
    with mock.patch.object(fastpath, "_gates", return_value={}):
        fast = GATES(path, choice)
    gates = {}
    for layer in path.layers:
        folded = {layer: fast.folded[layer]} if layer in fast.folded else {}
        gates |= fastpath._gates([layer], folded, choice)
    return fast._replace(by_layer=gates)


@contextlib.contextmanager
def _unfolded() -> Iterator[None]:
    with mock.patch.object(fastpath, "_can_fold", return_value=False):
        yield


def _patched(owner: object, name: str, value: object) -> Callable[[], contextlib.AbstractContextManager]:
    return lambda: mock.patch.object(owner, name, value)


TRICKS = {
    "all gates at once": _patched(fastpath.FastPath, "gates", _layer_by_layer),
    "batch norm folded": _unfolded,
    "one row in the weight": _patched(fastpath, "_is_plain", lambda base: False),
    "backward by the output": _patched(fastpath, "_Gated", _PlainGated),
}


def _works(bench: NetworkBench, trick: str) -> dict[str, Callable[[], object]]:
    """The pieces of work that a trick speeds up."""
    step = bench.untraining().run
    works = {
        "one row": lambda: bench._infer(bench.wf, bench.images, forget=3),
        "one row, one image": lambda: bench._infer(bench.wf, bench.images[:1], forget=3),
        "one row an image": lambda: bench._infer(bench.wf, bench.images, forget=bench.labels),
        "untraining step": step,
    }
    if trick == "one row in the weight":
        return {name: works[name] for name in ("one row", "one row, one image")}
    if trick == "backward by the output":
        return {"untraining step": step}
    return works


def measure(network: str, scale: Scale) -> dict[str, dict[str, object]]:
    """By trick and piece of work: the median ratio, its quartiles, and torch operations without and with."""
    bench, found = NetworkBench(network, scale, DEVICE), {}
    for trick, removed in TRICKS.items():
        found[trick] = {}
        for name, work in _works(bench, trick).items():

            def without(work=work, removed=removed) -> None:
                with removed():
                    work()

            ratios = paired(without, work, scale.repeats, scale.least, DEVICE)
            low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
            found[trick][name] = {
                "without / with": round(statistics.median(ratios), 3),
                "quartiles": [round(low, 3), round(high, 3)],
                "operations": [count_calls(without), count_calls(work)],
            }
        if trick == "backward by the output":
            with removed():
                peak = bench.untraining().peak_bytes(DEVICE)
            with_it = bench.untraining().peak_bytes(DEVICE)
            found[trick]["peak memory of a step"] = {"without / with": round(peak / with_it, 3)}
        print(network, trick, found[trick], flush=True)
    plain = paired(_plain_step(bench), bench.untraining().run, scale.repeats, scale.least, DEVICE)
    found["all of them"] = {"untraining step": {"without / with": round(statistics.median(plain), 3)}}
    print(network, found["all of them"], flush=True)
    return found


def _plain_step(bench: NetworkBench) -> Callable[[], object]:
    """An untraining step by the plain forward of each layer."""
    step, forward = bench.untraining(), WFNet.forward

    def plain_forward(self, x, forget=None):
        if forget is None:
            return forward(self, x)
        with self.forgetting(forget):
            return self.model(x)

    def run() -> None:
        with mock.patch.object(WFNet, "forward", plain_forward):
            step.run()

    return run


def main() -> None:
    keep_freed_memory()
    scale = Scale(repeats=7, least=0.2).on(DEVICE)
    record = {
        "machine": device_name(DEVICE),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "images": scale.images,
        "networks": {network: measure(network, scale) for network in NETWORKS},
    }
    path = runs_folder() / "bench" / "fastpath.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(record, indent=1) + "\n")
    print(f"-> {path}")


if __name__ == "__main__":
    main()
