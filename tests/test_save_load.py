"""``save`` and ``load``: the same rows come back, and whatever does not fit is refused by name."""

import json
import warnings

import pytest
import torch
from safetensors.torch import save_file

import wfnb


@pytest.fixture
def wf(net, randomised):
    return randomised(wfnb.WFNet(net, 5, list("abcde")))


@pytest.fixture
def file(wf, tmp_path):
    return wf.save(tmp_path / "alpha.safetensors")


def refused(path, model, *words, error=ValueError, **options):
    with pytest.raises(error) as caught:
        wfnb.WFNet.load(path, model, **options)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("name", ["plain", "grouped", "odd", "twice", "vit"])
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip(name, separate, dtype, network, randomised, images, tmp_path):
    net = network(name).to(dtype)
    wf = randomised(wfnb.WFNet(net, 5, separate_bias=separate))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = wfnb.WFNet.load(wf.save(tmp_path / "alpha.safetensors"), net)
    assert list(back.alphas()) == list(wf.alphas())
    for key, table in wf.alphas().items():
        assert torch.equal(back.alphas()[key], table)
        assert back.alphas()[key].dtype == dtype
    x, rows = images.to(dtype), torch.tensor([0, 4, 2, 2, 1, 3, 0])
    assert torch.equal(back(x, forget=rows), wf(x, forget=rows))
    assert back.class_names == wf.class_names


def test_other_precision_of_the_same_weights(network, randomised, tmp_path):
    net = network("plain").float()
    wf = randomised(wfnb.WFNet(net, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = wfnb.WFNet.load(wf.save(tmp_path / "alpha.safetensors"), net.double())
    assert back.alphas()["conv1"].dtype == torch.float64
    assert torch.equal(back.alphas()["conv1"].float(), wf.alphas()["conv1"])


def test_layers_of_choice_come_back(net, randomised, tmp_path):
    wf = randomised(wfnb.WFNet(net, 5, layers=["fc"]))
    assert list(wfnb.WFNet.load(wf.save(tmp_path / "alpha.safetensors"), net).filters) == ["fc"]


def test_path_and_overwriting(wf, net, tmp_path):
    path = wf.save(str(tmp_path / "alpha.safetensors"))
    with torch.no_grad():
        wf.alphas()["conv1"].zero_()
    wf.save(path)
    assert wfnb.WFNet.load(str(path), net).alphas()["conv1"].eq(0).all()
    assert [p.name for p in tmp_path.iterdir()] == ["alpha.safetensors"]


def test_other_classes(file, net, network):
    assert wfnb.WFNet.load(file, net, class_names=list("abcde")).class_names == tuple("abcde")
    refused(file, net, str(file), "'a'", "'v'", class_names=list("vwxyz"))
    other = network("plain")
    other.fc = torch.nn.Linear(8, 7).double()
    refused(file, other, str(file), "other classes", "[5, 8]", "[7, 8]")


def test_other_architecture(file, network):
    refused(
        file,
        network("grouped"),
        str(file),
        "another architecture",
        "Grouped",
        "'conv1.weight'",
        "[6, 3, 3, 3]",
    )
    wider = network("plain")
    wider.conv2, wider.bn = torch.nn.Conv2d(6, 9, 3, bias=False).double(), torch.nn.BatchNorm2d(9).double()
    wider.fc = torch.nn.Linear(9, 5).double()
    refused(file, wider, str(file), "another architecture", "'conv2.weight'", "[8, 6, 3, 3]", "[9, 6, 3, 3]")


def test_a_deeper_network_is_another_architecture(tmp_path):
    from wfnb.originals.zoo import ResNet

    short, deep = (ResNet(1, 5, (4, 8), blocks).eval() for blocks in ((1, 1), (1, 2)))
    path = wfnb.WFNet(short, 5).save(tmp_path / "alpha.safetensors")
    refused(path, deep, str(path), "another architecture")
    refused(wfnb.WFNet(deep, 5).save(path), short, str(path), "another architecture")


def test_other_weights_get_a_warning(file, wf, net, network):
    with torch.no_grad():
        net.fc.bias[0] += 1e-6
    with pytest.warns(UserWarning, match=r"alpha\.safetensors was trained on other weights") as caught:
        back = wfnb.WFNet.load(file, net)
    assert caught[0].filename == __file__
    assert torch.equal(back.alphas()["conv1"], wf.alphas()["conv1"])


def test_missing_file(net, tmp_path):
    refused(tmp_path / "no.safetensors", net, "no.safetensors", "save", error=FileNotFoundError)
    refused(tmp_path, net, str(tmp_path), error=FileNotFoundError)


def test_no_module(file):
    refused(file, "resnet18", "torch.nn.Module", "str", error=TypeError)


@pytest.mark.parametrize("cut", [0, 5, 100, -1])
def test_corrupt_file(cut, file, net):
    file.write_bytes(file.read_bytes()[:cut])
    refused(file, net, str(file), "safetensors")


def test_a_pickle_is_never_loaded(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "alpha.pt")
    refused(tmp_path / "alpha.pt", net, "alpha.pt", "not a safetensors file")


def test_a_safetensors_file_of_others(net, tmp_path):
    save_file({"conv1": torch.zeros(5, 6)}, tmp_path / "other.safetensors")
    refused(tmp_path / "other.safetensors", net, "other.safetensors", "no alpha file")
    for about in ('{"schema": 999}', "[]", "{nonsense"):
        save_file({"conv1": torch.zeros(5, 6)}, tmp_path / "other.safetensors", {"wfnb": about})
        refused(tmp_path / "other.safetensors", net, "other.safetensors", "no alpha file")


@pytest.mark.parametrize("change", ["missing", "shape"])
def test_tables_that_do_not_fit(change, file, net):
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        about, tables = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    if change == "missing":
        del tables["conv2"]
    else:
        tables["conv2"] = tables["conv2"][:1].clone()  # would be broadcast to all classes
    assert json.loads(about["wfnb"])
    save_file(tables, file, about)
    refused(file, net, str(file), "'conv2'")


def test_interrupted_save_leaves_nothing(wf, tmp_path, monkeypatch):
    def half(tensors, filename, metadata=None):
        with open(filename, "wb") as out:
            out.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", half)
    with pytest.raises(KeyboardInterrupt):
        wf.save(tmp_path / "alpha.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_interrupted_save_keeps_the_file_before_it(wf, file, monkeypatch):
    before = file.read_bytes()
    monkeypatch.setattr(
        "safetensors.torch.save_file", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        wf.save(file)
    assert file.read_bytes() == before
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_saving_into_no_folder(wf, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        wf.save(tmp_path / "nowhere" / "alpha.safetensors")
