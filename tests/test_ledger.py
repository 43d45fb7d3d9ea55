"""The ledger holds every printed figure, judges by its rule, and fills nothing in."""

import pytest

from wfnb.reproduction import rendering
from wfnb.reproduction.ledger import attempted, ledger, summarised, verdict


def test_every_printed_figure_has_a_row():
    frame = ledger("quick")
    assert len(frame) == 200
    assert not frame.duplicated(["table", "dataset", "arch", "method", "metric"]).any()
    wfnet = frame[
        (frame["dataset"] == "CIFAR-10") & (frame["arch"] == "VGG-16") & (frame["method"] == "WF-Net")
    ]
    assert dict(zip(wfnet["metric"], wfnet["printed"], strict=True)) == {
        "acc_r_pct": 80.2, "acc_f_pct": 18.3, "zrf": 0.574, "relearn_epochs": 54.2,
    }  # fmt: skip


def test_nothing_is_filled_in_where_nothing_was_run():
    frame, sentence = summarised("paper")
    assert set(frame["verdict"]) == {"not attempted"}
    assert frame["ours"].isna().all()
    assert (
        sentence == "200 printed figures: 0 reproduced, 0 within range, 0 not reproduced, 200 not attempted."
    )


def test_only_what_was_run_is_shown_and_the_sentence_counts_the_rest():
    frame, sentence = summarised("paper")
    assert attempted(frame).empty
    files = rendering.table_files("ledger", frame, attempted(frame), "The ledger", sentence)
    assert len(files["ledger.csv"]) == 200
    for kind in ("md", "html", "tex", "txt"):
        assert "200 not attempted" in files[f"ledger.{kind}"]
        assert "VGG-16" not in files[f"ledger.{kind}"]
    assert all(line.startswith("%") for line in files["ledger.tex"].splitlines())
    run = (frame["dataset"] == "MNIST") & (frame["arch"] == "VGG-16") & (frame["method"] == "WF-Net")
    frame.loc[run, ["ours", "verdict"]] = [50.123456, "not reproduced"]
    frame["ours_wfnb"] = frame["ours_wfnb"].mask(run & (frame["metric"] != "relearn_epochs"), 99.0)
    shown = attempted(frame).set_index("metric")
    assert list(shown.index) == ["acc_r_pct", "acc_f_pct", "zrf", "relearn_epochs"]
    assert shown.loc["acc_r_pct", "ours"] == 50.123
    assert shown["sd"].tolist() == [rendering.NONE] * 4
    assert shown["ours_wfnb"].tolist() == [99.0, 99.0, 99.0, rendering.NONE]  # relearned once, under "ours"
    assert shown["ours_author"].tolist() == ["not attempted"] * 3 + [rendering.NONE]


@pytest.mark.parametrize(
    ("ours", "sd", "expected"),
    [
        (80.9, 0.0, "reproduced"),
        (83.1, 0.0, "within range"),
        (83.3, 0.0, "not reproduced"),
        (83.3, 2.0, "reproduced"),
        (float("nan"), float("nan"), "not attempted"),
        (80.2, float("nan"), "reproduced"),
    ],
)
def test_verdicts(ours, sd, expected):
    assert verdict("acc_r_pct", 80.2, ours, sd) == expected
