"""The benchmark: ratios by turns against a clock of our own, memory against sums by hand, and what is said of the costs."""

import contextlib
import json
import math
import multiprocessing

import pytest
import torch
from torch import nn

from wfnb.bench import measure as bench
from wfnb.bench import results as bench_results
from wfnb.originals.training import training_step

CPU = torch.device("cpu")


def test_a_ratio_is_taken_by_turns(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(bench.time, "perf_counter", lambda: now[0])

    def work(name, seconds):
        def run():
            calls.append(name)
            now[0] += seconds

        return run

    ratios = bench.paired(work("a", 3.0), work("b", 2.0), 3, 4.0, CPU)
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

    megabytes = bench.Step(run, model, optimizer).peak_bytes(CPU) / 4e6
    # weights, momentum, the gradients of the last step and those that are being added to them
    assert megabytes == pytest.approx(4, abs=0.1)


def test_a_step_without_gradients_of_weights_holds_fewer_bytes():
    one = bench._Bench("resnet20", bench.SMOKE, CPU)
    held = one.training().peak_bytes(CPU)
    assert one.step_memory() == [one.untraining().peak_bytes(CPU) / held]
    weights = sum(p.nbytes for p in one.original.parameters())
    assert held > 3 * weights  # weights, gradients and momentum


def test_a_step_expands_to_as_many_images_as_a_training_step(monkeypatch):
    one, seen = bench._Bench("resnet20", bench.SMOKE, CPU), []
    step = one.untraining()
    step.model.model.register_forward_hook(lambda module, args, output: seen.append(len(output)))
    step.run()
    assert seen == [bench.SMOKE.images]
    recipe = one.recipe
    assert math.isfinite(
        training_step(
            one.network(10).train(), one.images, one.labels, recipe, torch.optim.SGD([torch.zeros(1)], 1)
        )
    )


def test_what_torch_computes_is_counted_and_views_are_not():
    x = torch.ones(2, 3, requires_grad=True)
    assert bench.calls_of(lambda: (2 * x.view(6)[1:].exp()).detach()) == 2
    # forward: a product, a sum; backward: a one to begin with and a product, for the gradient of a sum is spread by a view
    assert bench.calls_of(lambda: torch.autograd.grad((2 * x).sum(), x)) == 4


def test_rows_ask_for_little_beyond_the_original():
    one = bench._Bench("resnet20", bench.SMOKE, CPU)
    calls, layers = one.calls, len(one.wf.filters)
    assert calls["original"] == bench.calls_of(torch.no_grad()(lambda: one.original(one.images)))
    # the weight is scaled, and no batch norm is called; a few for all layers together
    assert 0 < calls["one row"] - calls["original"] < layers
    assert 0 < calls["a row an image"] - calls["original"] < 2 * layers


def test_one_image_is_measured_under_each_kind_of_row():
    one, seen = bench._Bench("resnet20", bench.SMOKE, CPU), []
    one.wf.register_forward_hook(
        lambda module, args, kwargs, out: seen.append((len(args[0]), kwargs["forget"])), with_kwargs=True
    )
    found = one.one_image
    assert list(found) == ["original", "one row", "a row an image"]
    assert min(found.values()) > 0
    assert {count for count, _ in seen} == {1}
    assert {type(forget) for _, forget in seen} == {type(None), int, torch.Tensor}


def test_networks_train_side_by_side(monkeypatch):
    with bench._trainers("resnet20", bench.SMOKE, CPU, 2) as rates:
        assert [len(rates(n, 1)) for n in (2, 1)] == [2, 1]
        assert min(rates(2, 1)) > 0
    assert not multiprocessing.active_children()
    asked = []

    @contextlib.contextmanager
    def trainers(arch, scale, device, count):
        yield lambda n, threads: asked.append((n, threads)) or [3.0 if n > 1 else 4.0] * n

    monkeypatch.setattr(bench, "_trainers", trainers)
    monkeypatch.setattr(bench.torch, "get_num_threads", lambda: 2)
    assert bench._Bench("resnet20", bench.SMOKE, CPU).side_by_side() == [1.5]
    assert asked == [(2, 1), (1, 2)]


def test_bytes_are_those_of_the_tables_beside_one_network():
    one = bench._Bench("resnet20", bench.SMOKE, CPU)
    # ResNet-20 at a quarter of its width: 4, 8 and 16 channels
    gates = 10 * (4 + 6 * 4 + 6 * 8 + 8 + 6 * 16 + 16)
    network = sum(v.numel() * v.element_size() for v in one.original.state_dict().values())
    assert one.bytes() == [pytest.approx((network + 4 * gates) / (10 * network))]


def costs(ratios=(1.0,), **methods):
    """Seconds, Acc_r and Acc_f by method; a schedule of a quarter of the steps takes a third of the time, and reaches a point less."""
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


def test_against_the_cheapest_method_the_quickest_schedule_counts_that_is_as_good():
    found = costs(
        (0.2, 0.25, 0.5),
        WF_Net=(30, 98, 0),
        random_labels=(40, 90, 0),
        negative_gradients=(60, 98, 0),
        retrained=(900, 99, 0),
    )
    row = bench._all_classes_row(found)
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


def test_a_method_that_forgets_more_is_not_reached():
    row = bench._all_classes_row(costs((3.0,), WF_Net=(30, 98, 0.5), random_labels=(10, 90, 0)))
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
    assert bench.GOALS[name].met(figure) is met


def test_figures_are_kept_and_read_and_missed_without(tmp_path, monkeypatch):
    monkeypatch.setenv("WFNB_RUNS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="wfnb bench --device cpu"):
        bench_results.kept(CPU)
    calls = {"original": 72, "one row": 85}
    rows = [
        bench._row("step", "resnet20", [0.7, 0.8, 0.9], without_gates=0.66, calls=calls),
        bench._row("import", "", [1.1]),
    ]
    rows.append(bench._row("one_row", "resnet20", [1.0], one_image={"original": 1.101, "one row": 1.5}))
    rows.append(bench._all_classes_row(costs((0.11,), WF_Net=(30, 98, 0), retrained=(90, 97, 0))))
    found = {
        "hardware": {"device": "cpu", "name": "a processor", "threads": 1, "gpu": "none"}, "libraries": {"torch": "0"}, "rows": rows,
        "scale": {"networks": ["resnet20"], "repeats": 3}, "costs": costs(WF_Net=(30, 98, 0), retrained=(90, 97, 0)),
    }  # fmt: skip
    assert bench_results.keep(found) == tmp_path / "bench" / "cpu.json"
    assert bench_results.kept(CPU) == found
    assert rows[0]["quartiles"] == [pytest.approx(0.75), pytest.approx(0.85)]
    table = bench_results.ratios_table(found)
    assert table["resnet20"].tolist() == ["0.80 *", "1.00", "", ""]
    assert table["all"].tolist() == ["", "", "0.11", "1.10"]
    assert table["goal"].tolist() == ["<= 0.75", "<= 1.05", "<= 0.5", "<= 1.15"]
    page = (tmp_path / "bench" / "cpu.md").read_text()
    assert "a processor (cpu, 1 threads)" in page
    assert "torch.compile" not in page  # not measured
    assert "| network | original | one row |\n|---|---|---|\n| resnet20 | 72 | 85 |" in page
    assert "| resnet20 | 1.1 | 1.5 |" in page
    assert "GPU: none." in page
    assert "with nothing gated takes 0.66 (resnet20) of a training step" in page
    assert "| 50 | original | 1 | 10.0 |" in page
    assert (
        "| retrained | 90.0 | 10 | 10 | 97.00 | 0.00 | 50 | 2 |" in page
    )  # 10 s in 50 steps, and 9 s a class
    for network, figures in {"resnet20": (0.8, 0.9, 30.4, 1520), "vit_t": (1.1, 1.0, 31.0, None)}.items():
        rows.append(
            bench._row("step_compiled", network, [0.6], **dict(zip(bench.COMPILED, figures, strict=True)))
        )
    bench_results.keep(found)
    page = (tmp_path / "bench" / "cpu.md").read_text()
    assert "| resnet20 | 0.8 | 0.9 | 30 | 1520 |" in page
    assert "| vit_t | 1.1 | 1.0 | 31 | never |" in page


def test_a_gpu_gets_more_images_and_shorter_measurements_where_their_number_is_open():
    one = bench.Scale(repeats=3)
    assert one.on(CPU) == bench.Scale(repeats=3, images=64)
    assert one.on(torch.device("cuda")) == bench.Scale(repeats=3, images=512, least=0.1)
    assert bench.SMOKE.on(torch.device("cuda")) == bench.SMOKE


def test_figures_of_the_other_kind_of_device_are_shown_where_they_are_kept(runs_folder):
    assert bench_results.kept_elsewhere(CPU) is None
    for kind in ("cpu", "cuda"):
        bench_results.results_file(torch.device(kind)).parent.mkdir(parents=True, exist_ok=True)
        bench_results.results_file(torch.device(kind)).write_text(json.dumps({"hardware": kind}))
    assert bench_results.kept_elsewhere(CPU) == {"hardware": "cuda"}
    assert bench_results.kept_elsewhere(torch.device("cuda")) == {"hardware": "cpu"}
    assert bench_results.kept(CPU) == {"hardware": "cpu"}


def test_a_compiled_step_pays_once_what_it_saves_makes_up_for_compiling(monkeypatch):
    one = bench._Bench("resnet20", bench.SMOKE, CPU)
    compiled, step = [], bench.compiled_step
    monkeypatch.setattr(
        bench,
        "compiled_step",
        lambda work, device, wanted: compiled.append(wanted) or step(work, device, False),
    )
    monkeypatch.setattr(bench, "_timed", lambda work, device: (work(), 30.0))
    monkeypatch.setattr(bench, "_seconds", lambda work, calls, device: 0.1)
    ratios = iter([[0.75], [0.9], [1.1], [0.9]])
    one.ratio = lambda first, second: next(ratios)
    assert one.compiling == dict(
        zip(bench.COMPILED, (0.75, 0.9, 30.0, 1200), strict=True)
    )  # 25 of 100 ms saved
    del one.compiling
    assert one.compiling["pays_off_from_steps"] is None
    assert compiled == [True, True, False, False, False, False]  # compiled once, measured twice


@pytest.mark.parametrize(
    ("gpu", "device", "said"),
    [
        (None, "cpu", "none was at hand"),
        ("a GPU", "cpu", "a GPU, on which nothing here was measured"),
        ("a GPU", "cuda", "a GPU"),
    ],
)
def test_what_is_said_of_a_gpu(gpu, device, said, monkeypatch):
    monkeypatch.setattr(bench, "as_device", lambda name: torch.device("cuda" if gpu else "cpu"))
    monkeypatch.setattr(bench, "device_name", lambda device: gpu)
    assert bench.gpu_named(torch.device(device)).startswith(said)
    assert ("nothing" in bench.gpu_named(torch.device(device))) is (device == "cpu")
