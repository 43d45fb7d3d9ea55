"""The sentence that answers a notebook's question gives its metrics, and the gap to the original."""

import json

import pytest

from wfnb.paths import project_root
from wfnb.reproduction.answers import ANSWERS, answer

SHORT = ("train", "untrain", "baselines", "relearn")
PUBLISHED = sorted((project_root() / "runs" / "published").rglob("metrics.json"))


def test_train():
    metrics = {"test_accuracy_pct": 90.554, "classes": [0, 1, 2], "acc_f_per_class_pct": [91.0, 79.84, 99.0]}
    assert answer("train", metrics) == (
        "The original classifies 90.55 % of the test images correctly. "
        "The accuracy on single classes is lowest for class 1: 79.8 %."
    )


def untrained(**changes):
    return {
        "classes": list(range(10)),
        "acc_r_pct": 90.999,
        "acc_f_pct": 0.0,
        "probe_recall_pct": 84.77,
        "probe_recall_original_pct": 89.85,
    } | changes


def test_untrain_states_the_gap_to_the_original():
    assert answer("untrain", untrained()) == (
        "Acc_r 91.00 %, Acc_f 0.00 % (means over 10 classes, test images). A linear probe still recognises "
        "84.8 % of the forgotten class's images, and 89.8 % in the original: 5.0 points fewer."
    )


@pytest.mark.parametrize(
    ("recall", "gap"), [(99.0, "0.5 points fewer"), (99.5, "no difference"), (99.7, "0.2 points more")]
)
def test_untrain_where_the_probe_still_finds_the_class(recall, gap):
    text = answer("untrain", untrained(probe_recall_pct=recall, probe_recall_original_pct=99.5))
    assert f"still recognises {recall} % of the forgotten class's images" in text
    assert text.endswith(f": {gap}.")


def test_untrain_without_a_probe():
    metrics = untrained()
    del metrics["probe_recall_pct"]
    assert answer("untrain", metrics) == "Acc_r 91.00 %, Acc_f 0.00 % (means over 10 classes, test images)."


def forgot(classes, acc_f, recalls):
    return {"classes": classes, "acc_f_pct": acc_f, "probe_recall_per_class_pct": recalls}


def test_baselines_compare_probes_on_the_classes_that_all_methods_share():
    methods = {
        "Retrained": forgot([2], 0.0, [76.5]),
        "Logit mask": forgot([0, 2], 0.0, [10.0, 91.0]),
        "Random gates": forgot([0, 2], 83.97, [20.0, 90.5]),
    }
    assert answer("baselines", {"methods": methods}) == (
        "Acc_f on test images (mean over a method's classes): Retrained 0.00 %, Logit mask 0.00 % and "
        "Random gates 83.97 %. A linear probe's recall of class 2, which every method has forgotten: "
        "Retrained 76.5 %, Logit mask 91.0 % and Random gates 90.5 %."
    )


def relearned(classes, epochs, failures=0):
    return {
        "relearn_classes": classes,
        "relearn_per_class_epochs": epochs,
        "relearn_failures": failures,
        "relearn_epochs": sum(epochs) / len(epochs),
    }


def test_relearn_marks_the_cap_and_counts_failures():
    methods = {"WF-Net": relearned([0, 1, 2], [5, 30, 7], 1), "Retrained": relearned([0], [30], 1)}
    assert answer("relearn", {"cap_epochs": 30, "methods": methods}) == (
        "Epochs of 500 images until class 0 is back, cap 30: WF-Net 5.0 and Retrained 30.0 (the cap). "
        "WF-Net over 3 classes: 14.0 epochs on average, 1 not relearned within the cap."
    )


def test_relearn_over_several_shared_classes():
    methods = {"WF-Net": relearned([0, 1, 2], [4, 6, 8]), "Retrained": relearned([0, 2], [1, 2])}
    text = answer("relearn", {"cap_epochs": 30, "methods": methods})
    assert "until a class (mean of 0 and 2) is back, cap 30: WF-Net 6.0 and Retrained 1.5." in text
    assert text.endswith("WF-Net over 3 classes: 6.0 epochs on average.")


def test_a_step_without_a_question_has_no_answer():
    assert answer("tables", {}) == ""


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda p: "-".join(p.parts[-6:-1]))
def test_every_published_run_has_its_answer(path):
    metrics = json.loads(path.read_text(encoding="utf-8"))
    if metrics["step"] in ANSWERS:
        text = answer(metrics["step"], metrics)
        assert "nan" not in text
        if metrics["step"] in SHORT:
            assert text.endswith(".")
            assert len(text) < 450
