"""The filters that classes share, against graphs drawn by hand and slices written out."""

import itertools

import numpy as np
import pytest
import scipy.stats
import torch

import wfnb
from wfnb.evaluation import excitation, filters

# three classes, six filters; the two lowest of each row: {1, 4}, {4, 0}, {1, 5}
TABLE = np.array(
    [
        [0.9, 0.1, 0.8, 0.7, 0.2, 0.6],
        [0.3, 0.9, 0.8, 0.7, 0.2, 0.6],
        [0.9, 0.0, 0.8, 0.7, 0.6, 0.1],
    ]
)


def test_known_rows_give_the_known_graph():
    assert filters.top_filters(TABLE, 2).tolist() == [[1, 4], [4, 0], [1, 5]]
    assert filters.shared_filters(TABLE, 2) == {1: [0, 2], 4: [0, 1]}
    assert filters.shared_filters(TABLE, 2, classes=1) == {0: [1], 1: [0, 2], 4: [0, 1], 5: [2]}
    assert filters.shared_filters(TABLE, 2, classes=3) == {}
    # a layer with fewer than ten filters: all are shared
    assert filters.shared_filters(TABLE, 10) == {f: [0, 1, 2] for f in range(6)}


# three classes, four filters; closed are the negative ones
SIGNED = np.array([[-2.0, -1.0, 0.5, -0.1], [0.3, -1.0, 2.0, 1.0], [1.0, 1.0, 0.2, 3.0]])


def test_a_filter_is_closed_if_it_is_low_in_its_row_and_below_one_half():
    assert filters.closed_filters(SIGNED, 2) == {0: [0], 1: [0, 1]}  # not 3: third lowest; not row 2: open
    assert filters.closed_filters(SIGNED, 10) == {0: [0], 1: [0, 1], 3: [0]}
    assert filters.closed_filters(np.abs(SIGNED)) == {}
    assert filters.closed_sentence(SIGNED, 2) == "3 of the 6 lowest gates (2 a class) are below 0.5"
    assert filters.closed_sentence(np.abs(SIGNED)).startswith("none of the 12 lowest gates (4 a class)")


def test_closed_gates_by_part_and_head():
    table = np.ones((2, 12))  # q0 q1 k0 k1 v0 v1, two features each
    table[:, 10] = -1
    table[0, 0] = -1
    closed = filters.closed_by_head(table, 2)
    assert closed == {"q": [0.25, 0.0], "k": [0.0, 0.0], "v": [0.0, 0.5]}
    assert filters.heads_sentence(closed).endswith("q 12.5 %, k 0.0 %, v 25.0 %; the most in head 1 of v.")
    assert filters.closed_by_head(table, None) == {}
    assert "for transformers" in filters.heads_sentence({})
    assert "the most" not in filters.heads_sentence(filters.closed_by_head(np.ones((2, 12)), 2))


def test_the_graph_has_a_line_for_each_closed_gate():
    import matplotlib.pyplot as plt

    from wfnb import figures

    closed = filters.closed_filters(SIGNED)
    graph, _ = figures.filter_graph(closed, 1 / (1 + np.exp(-SIGNED)), ["a", "b", "c"], list("0123"), "conv")
    lines = [line for line in graph.lines if len(line.get_xdata()) == 2]
    assert len(lines) == sum(map(len, closed.values())) == 4
    assert graph.get_title() == "conv\nfilters that a class closes: 3"
    plt.close(graph.figure)


def test_ties_are_broken_by_index():
    assert filters.top_filters(np.ones((2, 5)), 3).tolist() == [[0, 1, 2], [0, 1, 2]]


def test_sharing_by_chance_is_the_mean_over_all_choices():
    chosen, channels = (2, 1, 2), 4
    choices = [list(itertools.combinations(range(channels), n)) for n in chosen]
    counts = [
        sum(sum(f in own for own in drawn) >= 2 for f in range(channels))
        for drawn in itertools.product(*choices)
    ]
    assert filters.expected_shared(chosen, channels) == pytest.approx(np.mean(counts))


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    wf = wfnb.WFNet(wfnb.create_model("vit_t", "digits", width=1 / 8, depth=2), 10)
    with torch.no_grad():
        for table in wf.alphas().values():
            table.copy_(torch.randn_like(table))
    return wf


def test_queries_keys_and_values_are_the_thirds_head_by_head(vit):
    table = filters.alpha_tables(vit)["blocks.1.attn.qkv"]
    heads = filters.heads_of(vit.model, "blocks.1.attn.qkv")
    assert (heads, table.shape) == (3, (10, 72))
    parts = filters.qkv_parts(table, heads)
    for i, part in enumerate("qkv"):
        for h in range(3):
            np.testing.assert_array_equal(parts[part][:, h], table[:, i * 24 + h * 8 : i * 24 + (h + 1) * 8])
    names = filters.filter_names(72, heads)
    assert [names[i] for i in (0, 8, 23, 24, 48, 71)] == ["q0.0", "q1.0", "q2.7", "k0.0", "v0.0", "v2.7"]


def test_the_thirds_are_those_that_attention_computes_with(vit):
    """With the values of head 1 closed, its output is 0, and that of the other heads is unchanged."""
    name, gates = "blocks.0.attn.qkv", torch.ones(72)
    gates[[i for i, called in enumerate(filters.filter_names(72, 3)) if called.startswith("v1.")]] = 0
    handed = []
    handle = vit.model.blocks[0].attn.proj.register_forward_pre_hook(
        lambda module, args: handed.append(args[0])
    )
    with torch.no_grad():
        x = torch.randn(2, 1, 16, 16)
        vit(x)
        with vit.gated({name: gates}):
            vit(x)
    handle.remove()
    before, after = (tokens.view(2, -1, 3, 8) for tokens in handed)
    assert (after[:, :, 1] == 0).all()
    torch.testing.assert_close(after[:, :, [0, 2]], before[:, :, [0, 2]])


def test_the_overlap_table_counts_each_layer(vit):
    tables = filters.alpha_tables(vit)
    overlap = filters.overlap_table(tables, vit.model, count=10)
    for layer, table in tables.items():
        lowest = [set(np.argsort(row)[:10].tolist()) for row in table]
        shared = {f for a, b in itertools.combinations(lowest, 2) for f in a & b}
        assert overlap.loc[layer, "shared"] == len(shared)
        assert set(overlap.loc[layer, "which"]) == {filters.filter_names(72, 3)[f] for f in shared}
        chance = sum(
            filters.expected_shared([len([f for f in low if f // 24 == i]) for low in lowest], 24)
            for i in range(3)
        )
        assert overlap.loc[layer, "shared_by_chance"] == pytest.approx(chance)
        assert overlap.loc[layer, "closed_pct"] == pytest.approx(100 * np.mean(table < 0))
        closed = sum(int((np.sort(row)[:10] < 0).sum()) for row in table)
        assert (overlap.loc[layer, "lowest"], overlap.loc[layer, "lowest_closed"]) == (100, closed)


def test_random_rows_share_as_many_as_expected():
    rng = np.random.default_rng(0)
    counts = [len(filters.shared_filters(rng.random((10, 64)))) for _ in range(400)]
    assert np.mean(counts) == pytest.approx(
        filters.expected_shared([10] * 10, 64), abs=4 * np.std(counts) / 20
    )


def test_the_most_shared_filter_of_each_part():
    assert filters.most_shared(TABLE, count=2) == {"1": (1, [0, 2])}
    assert filters.most_shared(TABLE, heads=1, count=2) == {
        "q0.1": (1, [0, 2]),
        "v0.0": (4, [0, 1]),
    }  # no k among the lowest


def test_similar_rows_of_confused_classes_correlate():
    rng = np.random.default_rng(0)
    tables = [rng.normal(size=(5, 7)), rng.normal(size=(5, 4))]
    similarity = filters.row_similarity(tables)
    a, b = (np.concatenate([t[c] for t in tables]) for c in (1, 3))
    assert similarity[1, 3] == pytest.approx(scipy.stats.pearsonr(a, b).statistic)
    counts = rng.integers(0, 9, (5, 5)) + 20 * np.eye(5, dtype=int)
    share = counts / counts.sum(1, keepdims=True)
    pairs = list(itertools.combinations(range(5), 2))
    expected = scipy.stats.spearmanr(
        [similarity[i, j] for i, j in pairs], [share[i, j] + share[j, i] for i, j in pairs]
    ).statistic
    found = filters.rank_correlation(similarity, counts)
    assert found["spearman"] == pytest.approx(expected)
    assert 0.001 <= found["p"] <= 1
    alike = filters.rank_correlation(share + share.T, counts)
    assert alike["spearman"] == pytest.approx(1)
    assert alike["p"] < 0.05


def test_an_original_that_confuses_nothing_has_no_correlation():
    found = filters.rank_correlation(np.random.default_rng(0).random((4, 4)), 5 * np.eye(4))
    assert found == {"spearman": None, "p": None, "pairs_confused": 0, "pairs": 6}


def test_channel_means_are_those_of_the_original_layer(vit):
    images = torch.randn(5, 1, 16, 16)
    means = excitation.channel_means(vit, "blocks.0.attn.qkv", images, batch_size=2)
    with torch.no_grad():
        plain = vit.original()
        x = plain.norm_pre(plain._pos_embed(plain.patch_embed(images)))
        expected = plain.blocks[0].attn.qkv(plain.blocks[0].norm1(x)).mean(1)
    torch.testing.assert_close(means, expected, atol=1e-5, rtol=1e-5)

    conv = wfnb.WFNet(wfnb.create_model("resnet18", "digits", width=1 / 16).eval(), 10)
    with torch.no_grad(), conv.forgetting(2):
        torch.testing.assert_close(
            excitation.channel_means(conv, "conv1", images),
            conv.original().conv1(images).mean((2, 3)),
            atol=1e-5,
            rtol=1e-5,
        )


def test_the_strongest_images_of_a_filter_and_their_classes():
    means = torch.tensor([[0.1, 5.0], [0.9, 1.0], [0.5, 3.0], [0.7, 2.0]])
    chosen = {"0": (0, [1, 2]), "1": (1, [0])}
    images = excitation.strongest(means, chosen, count=2)
    assert {name: index.tolist() for name, index in images.items()} == {"0": [1, 3], "1": [0, 2]}
    found = excitation.shares(chosen, images, torch.tensor([0, 1, 0, 2]))
    assert found["0"] == {"classes": [1, 2], "theirs_pct": 100.0, "by_chance_pct": 50.0, "images": 2}
    assert found["1"] == {"classes": [0], "theirs_pct": 100.0, "by_chance_pct": 50.0, "images": 2}
    assert len(excitation.strongest(means, chosen)["0"]) == 4
    names = [str(i) for i in range(12)]
    titles = excitation.filter_titles({"f": (7, list(range(12))), "g": (1, [3])}, names)
    assert titles == {"f": "f\nclasses 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...", "g": "g\nclasses 3"}
