"""The benchmark: ratios against a simulated clock, memory against sums by hand, tables and page."""

import contextlib
import json
import math
import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from wfnb import cli
from wfnb.bench import comparison, measure, network, plots, processes, results, tables, timing
from wfnb.bench.goals import GOALS, SMOKE, Scale, result_row
from wfnb.bench.network import NetworkBench
from wfnb.originals.training import training_step
from wfnb.paths import published_folder

CPU = torch.device("cpu")
COMPILED = ("compiled_to_not", "training_compiled_to_not", "compile_seconds", "pays_off_from_steps")


def test_the_two_works_alternate(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def work(name, seconds):
        def run():
            calls.append(name)
            now[0] += seconds

        return run

    ratios = timing.paired(work("a", 3.0), work("b", 2.0), 3, 4.0, CPU)
    assert ratios == pytest.approx([1.5, 1.5, 1.5])
    # warm-up, one trial of b (2 s, so two calls make 4 s), then a b, b a, a b
    assert "".join(calls) == "ab" + "b" + "aabb" + "bbaa" + "aabb"


def test_peak_memory_is_that_of_the_tensors_held_at_once():
    model = nn.Linear(1000, 1000, bias=False)  # 4 MB
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    x = torch.randn(1, 1000)

    def run():
        optimizer.zero_grad(set_to_none=False)
        model(x).sum().backward()
        optimizer.step()

    megabytes = timing.Step(run, model, optimizer).peak_bytes(CPU) / 4e6
    # weights, momentum, the gradients of the last step and those that are being added to them
    assert megabytes == pytest.approx(4, abs=0.1)


def test_a_step_without_gradients_of_weights_holds_fewer_bytes():
    one = NetworkBench("resnet20", SMOKE, CPU)
    held = one.training().peak_bytes(CPU)
    assert one.step_memory() == [one.untraining().peak_bytes(CPU) / held]
    weights = sum(p.nbytes for p in one.original.parameters())
    assert held > 3 * weights  # weights, gradients and momentum


def test_a_step_expands_to_as_many_images_as_a_training_step(monkeypatch):
    one, seen = NetworkBench("resnet20", SMOKE, CPU), []
    step = one.untraining()
    step.model.model.register_forward_hook(lambda module, args, output: seen.append(len(output)))
    step.run()
    assert seen == [SMOKE.images]
    recipe = one.recipe
    assert math.isfinite(
        training_step(
            one.new_network(10).train(), one.images, one.labels, recipe, torch.optim.SGD([torch.zeros(1)], 1)
        )
    )


def test_operations_are_counted_and_views_are_not():
    x = torch.ones(2, 3, requires_grad=True)
    assert timing.count_calls(lambda: (2 * x.view(6)[1:].exp()).detach()) == 2
    # forward: a product, a sum; backward: the initial one, a product (a sum's gradient is a view)
    assert timing.count_calls(lambda: torch.autograd.grad((2 * x).sum(), x)) == 4


def test_rows_need_few_operations_beyond_the_original():
    one = NetworkBench("resnet20", SMOKE, CPU)
    calls, layers = one.calls, len(one.wf.filters)
    assert calls["original"] == timing.count_calls(torch.no_grad()(lambda: one.original(one.images)))
    # weights are scaled, batch norms are folded; a few operations for all layers together
    assert 0 < calls["one row"] - calls["original"] < layers
    assert 0 < calls["a row an image"] - calls["original"] < 2 * layers


def test_one_image_is_measured_under_each_kind_of_row():
    one, seen = NetworkBench("resnet20", SMOKE, CPU), []
    one.wf.register_forward_hook(
        lambda module, args, kwargs, out: seen.append((len(args[0]), kwargs["forget"])), with_kwargs=True
    )
    found = one.one_image
    assert list(found) == ["original", "one row", "a row an image"]
    assert min(found.values()) > 0
    assert {count for count, _ in seen} == {1}
    assert {type(forget) for _, forget in seen} == {type(None), int, torch.Tensor}


def test_networks_train_side_by_side(monkeypatch):
    with processes.training_processes("resnet20", SMOKE, CPU, 2) as rates:
        assert [len(rates(n, 1)) for n in (2, 1)] == [2, 1]
        assert min(rates(2, 1)) > 0
    assert not multiprocessing.active_children()
    requested = []

    @contextlib.contextmanager
    def trainers(arch, scale, device, count):
        yield lambda n, threads: requested.append((n, threads)) or [3.0 if n > 1 else 4.0] * n

    monkeypatch.setattr(processes, "training_processes", trainers)
    monkeypatch.setattr(processes.torch, "get_num_threads", lambda: 2)
    assert processes.side_by_side(NetworkBench("resnet20", SMOKE, CPU)) == [1.5]
    assert requested == [(2, 1), (1, 2)]


def test_bytes_are_those_of_the_tables_beside_one_network():
    one = NetworkBench("resnet20", SMOKE, CPU)
    # ResNet-20 at a quarter of its width: 4, 8 and 16 channels
    gates = 10 * (4 + 6 * 4 + 6 * 8 + 8 + 6 * 16 + 16)
    network = sum(v.numel() * v.element_size() for v in one.original.state_dict().values())
    assert one.bytes() == [pytest.approx((network + 4 * gates) / (10 * network))]


def costs(ratios=(1.0,), **methods):
    """Costs from seconds, Acc_r, Acc_f by method; 50 steps take a third of the time of 200 and lose 1 %."""
    ours = methods["WF_Net"]

    def cost(seconds, acc_r, acc_f, networks=10):
        seen = {
            f"{split}{name}_pct": value
            for split in ("", "val_")
            for name, value in (("acc_r", acc_r), ("acc_f", acc_f))
        }
        return {"seconds": seconds, "networks": networks, "bytes": networks} | seen

    schedules = [(50, ours[0] / 3, ours[1] - 1), (200, *ours[:2])]
    return {
        "network": "toy",
        "classes": 10,
        "methods": {
            name.replace("WF_Net", "WF-Net"): cost(*v, 1 if name == "WF_Net" else 10)
            for name, v in methods.items()
        },
        "schedules": [
            {"steps": n, "retain_on": "original", "chi": 1} | cost(t, acc_r, ours[2], 1)
            for n, t, acc_r in schedules
        ],
        "ratios": list(ratios),
    }


def test_the_cheapest_method_is_compared_with_the_quickest_schedule_that_matches_it():
    found = costs(
        (0.2, 0.25, 0.5),
        WF_Net=(30, 98, 0),
        random_labels=(40, 90, 0),
        negative_gradients=(60, 98, 0),
        retrained=(900, 99, 0),
    )
    row = comparison.all_classes_row(found)
    assert (row["against"], row["figure"], row["repeats"], row["met"]) == ("random_labels", 0.25, 3, True)
    assert row["steps_by_method"] == {
        "random_labels": 50,
        "negative_gradients": 200,
        "retrained": None,
    }  # nothing reaches 99
    assert row["pays_off_from_classes"] == 3  # 10 s, and 4 s a class
    assert row["pays_off_from_classes_by_method"] == {
        "random_labels": 3,
        "negative_gradients": 5,
        "retrained": 1,
    }


def test_no_schedule_matches_a_method_that_forgets_more():
    row = comparison.all_classes_row(costs((3.0,), WF_Net=(30, 98, 0.5), random_labels=(10, 90, 0)))
    assert (row["against"], row["figure"], row["met"], row["steps_by_method"]) == (
        "random_labels",
        3.0,
        False,
        {"random_labels": None},
    )


@pytest.mark.parametrize(
    ("name", "figure", "met"),
    [("step", 0.75, True), ("step", 0.76, False), ("all_rows", 0.95, True), ("all_rows", 0.94, False)],
)
def test_goals(name, figure, met):
    assert GOALS[name].met(figure) is met


def test_results_are_stored_and_formatted(tmp_path, monkeypatch):
    monkeypatch.setenv("WFNB_RUNS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="wfnb bench --device cpu"):
        results.kept(CPU)
    calls = {"original": 72, "one row": 85}
    rows = [
        result_row("step", "resnet20", [0.7, 0.8, 0.9], without_gates=0.66, calls=calls),
        result_row("import", "", [1.1]),
    ]
    rows.append(result_row("one_row", "resnet20", [1.0], one_image={"original": 1.101, "one row": 1.5}))
    rows.append(comparison.all_classes_row(costs((0.11,), WF_Net=(30, 98, 0), retrained=(90, 97, 0))))
    found = {
        "measured": "2026-11-27T00:00:00+00:00", "libraries": {"torch": "0"}, "rows": rows,
        "hardware": {"device": "cpu", "name": "a processor", "threads": 1, "gpu": "none"},
        "scale": {"networks": ["resnet20"], "repeats": 3},
        "costs": costs(WF_Net=(30, 98, 0), retrained=(90, 97, 0)),
    }  # fmt: skip
    assert results.keep(found) == tmp_path / "bench" / "cpu.json"
    assert results.kept(CPU) == found | {"published": False}
    assert rows[0]["quartiles"] == [pytest.approx(0.75), pytest.approx(0.85)]
    table = tables.ratios_table(found)
    assert table["resnet20"].tolist() == ["0.80 *", "1.00", "", ""]
    assert table["all"].tolist() == ["", "", "0.11", "1.10"]
    assert table["goal"].tolist() == ["<= 0.75", "<= 1.05", "<= 0.5", "<= 1.15"]
    assert table["reason"].tolist() == [GOALS[n].reason for n in ("step", "one_row", "all_classes", "import")]
    page = (tmp_path / "bench" / "cpu.md").read_text()
    assert "a processor (cpu, 1 threads)" in page
    assert "compiled by torch.compile" not in page  # not measured
    assert "| network | no row | one row |\n|---|---|---|\n| resnet20 | 72 | 85 |" in page
    assert "| resnet20 | 1.1 | 1.5 |" in page
    assert "Nothing here was measured on a GPU." in page
    assert "not re-measured" not in page
    assert "take 0.66 (resnet20) of a training step" in page
    assert "| 50 | original | 1 | 10.0 |" in page
    assert (
        "| retrained | 90.0 | 10 | 10 | 97.00 | 0.00 | 50 | 2 |" in page
    )  # 10 s in 50 steps, and 9 s a class
    for arch, figures in {"resnet20": (0.8, 0.9, 30.4, 1520), "vit_t": (1.1, 1.0, 31.0, None)}.items():
        rows.append(result_row("step_compiled", arch, [0.6], **dict(zip(COMPILED, figures, strict=True))))
    results.keep(found)
    page = (tmp_path / "bench" / "cpu.md").read_text()
    assert "| resnet20 | 0.8 | 0.9 | 30 | 1520 |" in page
    assert "| vit_t | 1.1 | 1.0 | 31 | never |" in page


def test_a_gpu_gets_more_images_and_shorter_measurements_where_their_number_is_open():
    one = Scale(repeats=3)
    assert one.on(CPU) == Scale(repeats=3, images=64)
    assert one.on(torch.device("cuda")) == Scale(repeats=3, images=512, least=0.1)
    assert SMOKE.on(torch.device("cuda")) == SMOKE


def test_results_of_the_other_kind_of_device(runs_folder):
    assert results.kept_elsewhere(CPU) is None
    for kind in ("cpu", "cuda"):
        results.results_file(torch.device(kind)).parent.mkdir(parents=True, exist_ok=True)
        results.results_file(torch.device(kind)).write_text(json.dumps({"hardware": kind}))
    assert results.kept_elsewhere(CPU)["hardware"] == "cuda"
    assert results.kept_elsewhere(torch.device("cuda"))["hardware"] == "cpu"
    assert results.kept(CPU)["hardware"] == "cpu"


def bare(name):
    """Results without figures, of a machine with this name."""
    hardware = {"device": "cpu", "name": name, "threads": 2}
    return {"measured": "2026-11-27T10:00:00+00:00", "hardware": hardware, "libraries": {"torch": "2.0"}}


def test_your_own_results_come_before_the_published_ones(runs_folder):
    with pytest.raises(FileNotFoundError, match="wfnb bench --device cpu"):
        results.kept(CPU)
    for folder, name in ((published_folder(), "their machine"), (runs_folder, "your machine")):
        (folder / "bench").mkdir(parents=True)
        (folder / "bench" / "cpu.json").write_text(json.dumps(bare(name)))
        text = results.about(results.kept(CPU))
        assert f"{name} (cpu, 2 threads), 2026-11-27, torch 2.0" in text
        assert text.startswith("Published results" if name == "their machine" else "Your own results")
    early = bare("a machine") | {"measured": "2026-11-20T10:00:00+00:00"}
    assert results.about(early).endswith("not re-measured.")


def test_missed_goals_name_their_networks():
    rows = [
        result_row("step", "resnet20", [0.7]),
        result_row("step", "vit_t", [0.92]),
        result_row("open", "vit_t", [1.0]),
        result_row("pruned", "some/run", [1.2]),
        result_row("pruned", "other/run", [0.9]),
        result_row("import", "", [2.0]),
    ]
    table = tables.missed_table({"rows": rows})
    assert table["missed by"].tolist() == ["vit_t 0.920", "1 of 2 runs", "2.000"]
    assert list(table.index) == [GOALS[name].what for name in ("step", "pruned", "import")]
    assert table["reason"].tolist() == [GOALS[name].reason for name in ("step", "pruned", "import")]
    assert tables.goals_sentence({"rows": rows}) == "3 of 6 figures meet their goal."
    assert tables.missed_table({"rows": rows[:1]}).empty
    page = tables.styled(table.assign(reason="a long reason " * 20)).to_html()
    assert "a long reason " * 20 in page  # whole, as pandas would not show it


@pytest.mark.parametrize(
    ("ratios", "acc_f", "words"),
    [
        ((0.25,), 0, "takes 0.25 of its time for 10 classes; it is faster from 3 of 10 classes."),
        ((1.5,), 0, "faster for none of these numbers of classes."),
        ((0.25,), 5, "No schedule of WF-Net that was tried reaches the accuracies of random labels"),
    ],
)
def test_the_sentence_on_costs(ratios, acc_f, words):
    found = costs(ratios, WF_Net=(30, 98, acc_f), random_labels=(40, 90, 0), retrained=(900, 99, 0))
    row = comparison.all_classes_row(found)
    assert words in tables.costs_sentence({"rows": [row], "costs": found})


@pytest.mark.parametrize("own", [True, False])
def test_the_quick_preset_is_your_own_run_or_else_the_published_one(own, runs_folder, monkeypatch):
    monkeypatch.setattr(processes, "import_ratios", lambda repeats: [1.0])
    monkeypatch.setattr(processes, "notebook_overhead", lambda repeats: [1.0])
    assert [row["row"] for row in processes.process_rows(SMOKE)] == ["import", "notebook"]
    for folder, seconds in ((published_folder(), 600), (runs_folder, 300))[: 1 + own]:
        (folder / "quick").mkdir(parents=True)
        (folder / "quick" / "run.json").write_text(json.dumps({"seconds": seconds, "cores": 2}))
    row = processes.process_rows(SMOKE)[-1]
    assert (row["figure"], row["published"]) == ((5.0, False) if own else (10.0, True))
    table = tables.ratios_table({"rows": [row], "scale": {"networks": []}})
    assert table["all"].tolist() == ["5.00" if own else "10.00 (published run)"]


def test_a_compiled_step_pays_once_what_it_saves_makes_up_for_compiling(monkeypatch):
    one = NetworkBench("resnet20", SMOKE, CPU)
    compiled, step = [], network.compiled_step
    monkeypatch.setattr(
        network,
        "compiled_step",
        lambda work, device, wanted: compiled.append(wanted) or step(work, device, False),
    )
    monkeypatch.setattr(network, "timed", lambda work, device: (work(), 30.0))
    monkeypatch.setattr(network, "seconds_per_call", lambda work, calls, device: 0.1)
    ratios = iter([[0.75], [0.9], [1.1], [0.9]])
    one.ratios = lambda first, second: next(ratios)
    assert one.compilation == dict(zip(COMPILED, (0.75, 0.9, 30.0, 1200), strict=True))  # 25 of 100 ms saved
    del one.compilation
    assert one.compilation["pays_off_from_steps"] is None
    assert compiled == [True, True, False, False, False, False]  # compiled once, measured twice


@pytest.mark.parametrize(("gpu", "name"), [(None, "none"), ("a GPU", "a GPU")])
def test_the_name_of_the_gpu(gpu, name, monkeypatch):
    monkeypatch.setattr(measure, "as_device", lambda name: torch.device("cuda" if gpu else "cpu"))
    monkeypatch.setattr(measure, "device_name", lambda device: gpu)
    assert measure.gpu_name() == name


def test_the_command_passes_device_and_repeats(monkeypatch):
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")  # set by the command where it is not
    seen = []

    def measured(device, scale):
        seen.append((device, scale))
        raise ValueError("no further")

    monkeypatch.setattr(measure, "measure", measured)
    assert cli.main(["bench", "--device", "cpu", "--repeats", "3"]) == 2
    assert seen == [(CPU, Scale(repeats=3))]


TRACKED = Path(__file__).parent.parent / "runs" / "published" / "bench"


def stored(kind):
    return json.loads((TRACKED / f"{kind}.json").read_text())


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_tracked_results_have_the_page_that_the_code_makes(kind):
    found = stored(kind)
    text = results.page(found)
    tracked = (TRACKED / f"{kind}.md").read_text()
    assert re.findall(r"[^|\s:-]+", tracked) == re.findall(r"[^|\s:-]+", text)  # however tables are aligned
    assert ("Nothing here was measured on a GPU." in text) is (kind == "cpu")
    assert ("not re-measured" in text) is (found["measured"] < results.ROWS_LOOKED_UP_TOGETHER)


def test_labels_are_those_of_the_goals_and_not_those_stored():
    found = stored("cpu")
    for row in found["rows"]:
        row |= {"what": "worded otherwise", "why": "worded otherwise"}
    assert results.page(found) == results.page(stored("cpu"))
    axes = plots.benchmark_ratios([row for row in found["rows"] if row["network"] == "resnet20"])
    labels = [label.get_text() for label in axes.get_yticklabels()]
    goals = [GOALS[row["row"]] for row in found["rows"] if row["network"] == "resnet20"]
    assert labels == [f"{goal.what}\n(goal {goal.text})" for goal in goals]
    assert not axes.texts  # nothing is written over the markers
    plt.close(axes.figure)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_freed_memory_is_kept():
    """64 MB are 16,384 pages, which fault again at each allocation unless the memory is kept."""
    code = """
import resource
from wfnb.bench.timing import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        [bytearray(2**24) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
if {keep}:
    keep_freed_memory()
faults()
print(faults())
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}

    def faults(keep):
        command = [sys.executable, "-c", code.replace("{keep}", str(keep))]
        return int(subprocess.run(command, check=True, capture_output=True, env=environment).stdout)

    assert faults(keep=True) < faults(keep=False) / 10
