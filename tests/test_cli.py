"""``wfnb status`` and ``wfnb reproduce``, and the graph behind them."""

import shlex
import subprocess
import sys

import pytest

from wfnb import cli
from wfnb.reproduction.cells import Cell, graph
from wfnb.reproduction.presets import PRESETS
from wfnb.reproduction.settings import parse_settings


@pytest.mark.parametrize("preset", PRESETS)
def test_every_cell_comes_after_those_it_needs(preset):
    cells = graph(preset)
    paths = [cell.path for cell in cells]
    assert len(set(paths)) == len(paths)
    for i, cell in enumerate(cells):
        for need in cell.needed():
            assert need.path in paths[:i], (cell.path, need.path)
        assert (
            Cell.of(cell.step, {"settings": {}, **cell.parameters()} if cell.arch else cell.parameters()).path
            == cell.path
        )
        assert cell.notebook.is_file()


def test_quick_is_what_the_readme_promises():
    cells = [c for c in graph("quick") if c.step == "untrain"]
    assert {c.arch for c in cells} == {"vgg16", "resnet18", "vit_t", "vit_s"}
    for arch in {c.arch for c in cells}:
        seeds = {
            r: sorted(c.seed for c in cells if (c.arch, c.recipe) == (arch, r))
            for r in ("wfnb", "paper", "author")
        }
        assert seeds == {"wfnb": [0, 1, 2], "paper": [0], "author": [0]}


def test_settings_of_a_graph():
    text = "untrain/resnet18.lambda1=2 untrain.lambda2=0.5 train.epochs=15"
    *cells, tables = graph("quick", parse_settings(text))
    assert {cell.arch for cell in cells} == {"vgg16", "resnet18", "vit_t", "vit_s"}
    for cell in cells:
        changed = {"lambda2": 0.5} | ({"lambda1": 2.0} if cell.arch == "resnet18" else {})
        if (
            cell.step == "train"
        ):  # the preset trains convolutional networks for 15 epochs, transformers for 60
            assert cell.settings == ({"epochs": 15} if cell.arch.startswith("vit") else {})
        elif cell.step == "untrain":
            assert changed.items() <= cell.settings.items()
            assert (",lambda1=2.0" in cell.path) == (cell.arch == "resnet18")
        else:  # a cell that depends on them has a folder of its own
            prefixed = {f"untrain.{name}": value for name, value in changed.items()}
            assert prefixed.items() <= cell.settings.items()
        assert {need.path for need in cell.needed()} <= {one.path for one in cells}
    assert tables.path.startswith("quick/tables,")
    assert tables.needed() == cells


def test_settings_that_change_nothing_keep_the_path():
    about = {"preset": "quick", "dataset": "digits", "arch": "resnet18"}
    plain = [cell.path for cell in graph("quick")]
    assert [cell.path for cell in graph("quick", {"train/resnet18.epochs": 15})] == plain
    assert Cell.of("train", about | {"settings": {"lr": 0.1}}).settings == {}
    one, two = (
        Cell.of("untrain", about | {"recipe": "wfnb", "settings": {"lambda1": value}}) for value in (2, 2.0)
    )
    assert one.path == two.path


def test_refused_settings_of_a_graph():
    for settings, words in [
        ("untrane.lambda1=2", "'untrane'.*'untrain'"),
        ("untrain/resnet19.lambda1=2", "'resnet19'.*'resnet18'"),
    ]:
        with pytest.raises(ValueError, match=words):
            graph("quick", parse_settings(settings))


def test_commands_can_be_pasted(monkeypatch):
    ran = []
    monkeypatch.setattr(cli, "run_cell", lambda cell, given, quiet: ran.append(cell) or cell.executed)
    monkeypatch.setattr(cli, "outcome", lambda cell: "")
    for wanted in (
        Cell.of(
            "untrain",
            {
                "preset": "quick",
                "dataset": "digits",
                "arch": "vit_s",
                "seed": 2,
                "recipe": "paper",
                "settings": {"lr": 0.5},
            },
        ),
        Cell.of(
            "train",
            {
                "preset": "paper",
                "dataset": "folder:/some where/it's",
                "arch": "timm:resnet18",
                "seed": 0,
                "settings": {},
            },
        ),
        Cell.of("tables", {"preset": "quick"}),
    ):
        program, *arguments = shlex.split(wanted.command())
        assert program == "wfnb"
        assert cli.main(arguments) == 0
        assert ran[-1] == wanted
        assert ran[-1].settings == wanted.settings


def test_one_setting_by_name(monkeypatch):
    ran = []
    monkeypatch.setattr(cli, "run_cell", lambda cell, given, quiet: ran.append(cell) or cell.executed)
    monkeypatch.setattr(cli, "outcome", lambda cell: "")
    words = ["-p", "preset", "smoke", "-p", "settings.lambda1", "0.5", "-p", "settings", '{"lr": 0.3}']
    assert cli.main(["run", "01_untrain", *words]) == 0
    assert ran[0].settings == {"lambda1": 0.5, "lr": 0.3}
    assert cli.main(["run", "06_tables", "-p", "settings.lambda1", "0.5"]) == 2


def test_status_of_nothing(capsys):
    assert cli.main(["status", "--preset", "smoke"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(graph("smoke"))
    assert all(line.startswith("missing") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["status", "--preset", "quik"], ["preset", "'quik'", "'quick'"]),
        (["reproduce", "--preset", "quik"], ["preset", "'quik'", "'quick'"]),
        (["reproduce", "--set", "lambda1=2"], ["'lambda1=2'", "STEP"]),
        (["reproduce", "--set", "untrane.lambda1=2"], ["'untrane'", "'untrain'"]),
        (["reproduce", "--set", "untrain.lamda1=2"], ["'lamda1'", "'lambda1'"]),
        (["reproduce", "--set", "untrain.lambda1=much"], ["'lambda1'", "float", "'much'"]),
    ],
)
def test_bad_arguments_are_one_line(arguments, words, runs_folder, capsys):
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert all(word in err for word in words), err
    assert not runs_folder.exists()


def test_a_reader_may_leave_early():
    command = f"{shlex.quote(sys.executable)} -m wfnb.cli status --preset paper | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("missing")
    assert not done.stderr


def test_interrupt(monkeypatch, capsys):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_cell", stop)
    assert cli.main(["run", "06_tables"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_help_and_status_import_no_torch():
    program = "from wfnb import cli; cli.main(['status', '--preset', 'smoke']); cli.main(['--help'])"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program], capture_output=True, text=True, check=True
    )
    assert "reproduce" in done.stdout
    assert not [
        line for line in done.stderr.splitlines() if line.endswith((" torch", " papermill", " snakemake"))
    ]


def test_the_benchmark_measures_in_this_process_with_the_given_repeats(monkeypatch, capsys):
    seen = []

    def measure(device, scale):
        seen.append((device.type, scale.repeats))
        raise ValueError("enough")

    monkeypatch.setattr("wfnb.bench.measure.measure", measure)
    assert cli.main(["bench", "--device", "cpu", "--repeats", "3"]) == 2
    assert seen == [("cpu", 3)]
    assert cli.main(["bench", "--repeats", "1"]) == 2
    assert "--repeats must be 2 or more, not 1" in capsys.readouterr().err
