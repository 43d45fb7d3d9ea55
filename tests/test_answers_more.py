"""Answers and verdicts of notebooks 04, 05 and 08, against metrics written by hand and the published runs."""

import json

import pytest
import scipy.stats

from wfnb.evaluation import verdicts
from wfnb.paths import project_root
from wfnb.reproduction.answers import answer

PUBLISHED = project_root() / "runs" / "published"
STEPS = ("insertion", "filters", "without_training_set")


def insertion(own=0.9, random=0.4, others=0.99, deletion=0.1, deletion_others=0.2):
    return {
        "insertion_auc": own, "insertion_random_auc": random, "insertion_reverse_auc": 0.05,
        "insertion_others_auc": others, "insertion_random_others_auc": 0.97,
        "insertion_reverse_others_auc": 0.96, "insertion_beats_random_classes": 9,
        "insertion_auc_per_class": [own] * 10,
        "deletion_auc": deletion, "deletion_random_auc": 0.3, "deletion_reverse_auc": 0.8,
        "deletion_others_auc": deletion_others, "deletion_random_others_auc": 0.2,
        "deletion_reverse_others_auc": 0.1, "deletion_beats_random_classes": 10,
        "deletion_auc_per_class": [deletion] * 10,
    }  # fmt: skip


def begins(sentences):
    return [sentence.split(":")[0] for sentence in sentences]


def test_insertion_and_deletion_are_judged_curve_by_curve():
    found = verdicts.insertion_verdicts(insertion())
    assert begins(found) == ["Supported", "Supported", "Supported", "Not supported"]
    assert "insertion area 0.90, random order 0.40, reverse order 0.05" in found[0]
    assert "9 of 10 classes" in found[0]
    assert "0.20, random order 0.20, reverse order 0.10" in found[3]
    # no better than a control by more than 0.05, or worse than one of the two
    assert begins(verdicts.insertion_verdicts(insertion(own=0.44)))[0] == "Not supported"
    assert begins(verdicts.insertion_verdicts(insertion(own=0.04, random=0.0)))[0] == "Not supported"
    assert begins(verdicts.insertion_verdicts(insertion(deletion=0.26)))[1] == "Not supported"
    assert begins(verdicts.insertion_verdicts(insertion(others=0.91)))[2] == "Not supported"  # controls 0.97
    assert begins(verdicts.insertion_verdicts(insertion(deletion_others=0.95)))[3] == "Supported"


def test_the_answer_on_insertion_names_the_curve_that_affects_other_classes():
    text = answer("insertion", insertion())
    assert "area of 0.90 (random order 0.40; better in 9 of 10 classes)" in text
    assert "0.99 (insertion) and 0.20 (deletion): only insertion leaves them unaffected." in text
    assert "they are affected, too" in answer("insertion", insertion(others=0.5))
    assert "they are not affected" in answer("insertion", insertion(deletion_others=0.97))


def filters(rho=-0.39, p=0.99, own=0.0, chance=40.0, layers=((16, 15, 15.99), (64, 40, 44.0))):
    return {
        "layers": [
            {"filters": count, "shared": shared, "shared_by_chance": expected}
            for count, shared, expected in layers
        ],
        "similarity_and_confusion": {"spearman": rho, "p": p, "pairs_confused": 43, "pairs": 45},
        "excite": {"9": {"classes": [0, 2, 3, 8], "theirs_pct": own, "by_chance_pct": chance}},
    }


def test_filters_are_judged_by_tests():
    found = verdicts.filter_verdicts(filters())
    assert begins(found) == ["Not supported"] * 3
    assert "0 of 1 layers" in found[0]  # of the narrow layer, chance alone shares all filters
    assert "rho = -0.39" in found[1]
    assert "0 of 10, by chance 40 %" in found[2]
    assert begins(verdicts.filter_verdicts(filters(rho=0.5, p=0.01)))[1] == "Supported"
    assert begins(verdicts.filter_verdicts(filters(rho=0.5, p=0.05)))[1] == "Not supported"
    assert begins(verdicts.filter_verdicts(filters(rho=None, p=None)))[1] == "Not tested"
    assert begins(verdicts.filter_verdicts(filters(layers=((8, 8, 8.0),))))[0] == "Not tested"
    assert begins(verdicts.filter_verdicts(filters(layers=((64, 50, 44.0),) * 5)))[0] == "Supported"
    assert begins(verdicts.filter_verdicts(filters(layers=((64, 50, 44.0),) * 4)))[0] == "Not supported"


@pytest.mark.parametrize(("own", "holds"), [(60.0, False), (70.0, False), (80.0, True), (100.0, True)])
def test_strongest_images_are_tested_against_the_binomial_distribution(own, holds):
    excite = filters(own=own)["excite"]["9"]
    count, images, p = verdicts.strongest_images(excite)
    assert (count, images) == (own // 10, 10)
    assert p == pytest.approx(scipy.stats.binom.sf(count - 1, 10, 0.4))
    assert begins(verdicts.filter_verdicts(filters(own=own)))[2] == "Supported" if holds else "Not supported"
    assert verdicts.strongest_images(excite | {"images": 4, "theirs_pct": 75.0})[:2] == (3, 4)


def test_the_answer_on_filters_does_not_claim_what_its_numbers_refute():
    text = answer("filters", filters())
    assert "do not have more similar rows (Spearman's rho -0.39, p = 0.99)" in text
    assert "0 of 10 (filter 9, by chance 40 %)" in text
    assert "have more similar rows" in answer("filters", filters(rho=0.5, p=0.01))
    assert "cannot be told" in answer("filters", filters(rho=None, p=None))
    assert "no layer is wide enough" in answer("filters", filters(layers=()))


def sources(acc_r=91.0, acc_f=0.0, base=0.0):
    own = {"acc_r_pct": acc_r, "acc_f_pct": acc_f, "probe_recall_pct": 85.2}
    return {
        "training_split": {"acc_r_pct": 91.0, "acc_f_pct": base, "probe_recall_pct": 84.8},
        "held_out": own | {"acc_f_pct": 0.0},
        "other_data": own | {"what": "smooth random noise, labelled"},
    }


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "Supported"),
        ({"acc_f": 53.7}, "Not supported"),
        ({"acc_r": 89.9}, "Not supported"),
        ({"acc_f": 0.9, "acc_r": 90.1}, "Supported"),
        ({"base": 27.3, "acc_f": 27.3}, "Not tested"),
    ],
)
def test_other_images_are_compared_with_the_training_split(changes, verdict):
    assert begins(verdicts.source_verdicts(sources(**changes)))[1] == verdict
    text = answer("without_training_set", sources(**changes))
    assert ("smooth random noise does as well as" in text) is (verdict == "Supported")
    assert ("smooth random noise does worse than" in text) is (verdict == "Not supported")
    assert f"Acc_f {sources(**changes)['other_data']['acc_f_pct']:.2f} %" in text
    assert "85.2 % of the forgotten class" in text


@pytest.mark.parametrize(
    "path",
    sorted(path for step in STEPS for path in PUBLISHED.glob(f"*/*/*/*/{step}*/metrics.json")),
    ids=lambda path: path.parent.relative_to(PUBLISHED).as_posix(),
)
def test_every_published_run_gives_an_answer(path):
    metrics = json.loads(path.read_text(encoding="utf-8"))
    text = answer(metrics["step"], metrics)
    assert text.endswith((".", ")"))
    assert "nan" not in text
    judge = {
        "insertion": verdicts.insertion_verdicts,
        "filters": verdicts.filter_verdicts,
        "without_training_set": verdicts.source_verdicts,
    }
    for sentence in judge[metrics["step"]](metrics):
        assert sentence.startswith(("Supported: ", "Not supported: ", "Not tested: "))
