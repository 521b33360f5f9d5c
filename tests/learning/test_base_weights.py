import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from httpx import Request, Response
from huggingface_hub.errors import HfHubHTTPError
from safetensors.torch import load_file, save_file
from tiny import CLASSES
from transformers import ConvNextV2Model, Dinov2Config, Dinov2Model
from transformers.utils.logging import disable_progress_bar, enable_progress_bar

from cxr_assets.experiment import Model, Probe, compose
from cxr_assets.learning import base_weights, networks
from cxr_assets.learning.base_weights import PretrainedError, UnreachableError


@pytest.fixture(scope="module")
def convnext_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ConvNeXt V2 with a 1000-class head, saved as the hub has it."""
    directory = tmp_path_factory.mktemp("convnext")
    config = {**networks.convnext_config(compose("demo").model, 64, CLASSES)}
    config["id2label"] = {index: f"LABEL_{index}" for index in range(1000)}
    config["label2id"] = {label: index for index, label in config["id2label"].items()}
    torch.manual_seed(1)
    networks.build(config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def dinov2_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small DINOv2 backbone without any head, as facebook/dinov2-small is."""
    directory = tmp_path_factory.mktemp("dinov2")
    torch.manual_seed(2)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=70)
    Dinov2Model(config).save_pretrained(directory)
    return directory


def model(**changes: object) -> Model:
    return Model.model_validate({**compose("full").model.model_dump(), **changes})


def probe(**changes: object) -> Probe:
    return Probe.model_validate({**compose("full").probe.model_dump(), **changes})


def test_a_directory_in_the_hubs_format_gives_body_and_fresh_head(convnext_directory):
    settings = model(pretrained=str(convnext_directory))
    network = networks.build(networks.convnext_config(settings, 64, CLASSES))
    base_weights.load(network, str(convnext_directory), None)
    saved = ConvNextV2Model.from_pretrained(convnext_directory).state_dict()
    for key, value in network.convnextv2.state_dict().items():
        assert torch.equal(value, saved[key]), key
    assert network.classifier.out_features == 3
    assert network.config.drop_path_rate == settings.drop_path_rate


@pytest.fixture
def transformers_log(caplog, monkeypatch):
    """What transformers logs: on its way to the terminal only, unless it propagates."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    enable_progress_bar()
    yield caplog
    disable_progress_bar()  # as the service does


def test_dinov2_loads_from_a_directory_without_a_head(dinov2_directory, transformers_log, capsys):
    settings = probe(pretrained=str(dinov2_directory))
    network = networks.build(networks.dinov2_config(settings, 64, CLASSES))
    base_weights.load(network, str(dinov2_directory), None)
    assert transformers_log.text == "", "a missing head is no fault"
    assert capsys.readouterr().err == "", "no progress bar for milliseconds"
    saved = Dinov2Model.from_pretrained(dinov2_directory).state_dict()
    for key, value in network.dinov2.state_dict().items():
        assert torch.equal(value, saved[key]), key


def test_a_backbone_with_missing_weights_is_rejected(dinov2_directory, tmp_path):
    settings = probe(pretrained=str(dinov2_directory))
    network = networks.build(networks.dinov2_config(settings, 64, CLASSES))
    weights = load_file(dinov2_directory / "model.safetensors")
    del weights["encoder.layer.1.norm1.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_bytes((dinov2_directory / "config.json").read_bytes())
    with pytest.raises(
        PretrainedError, match=r"1 parameters .*dinov2\.encoder\.layer\.1\.norm1\.weight"
    ):
        base_weights.load(network, str(tmp_path), None)


def test_weights_of_another_architecture_are_rejected(convnext_directory, dinov2_directory):
    network = networks.build(networks.convnext_config(model(pretrained=None), 64, CLASSES))
    with pytest.raises(PretrainedError, match="do not fit"):
        base_weights.load(network, str(dinov2_directory), None)


@pytest.mark.parametrize("cut", [0, 5, 1000])
def test_damaged_weights_are_named(tmp_path, convnext_directory, cut):
    directory = shutil.copytree(convnext_directory, tmp_path / "damaged")
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:cut])
    network = networks.build(networks.convnext_config(model(pretrained=None), 64, CLASSES))
    with pytest.raises(PretrainedError, match=r"damaged/model\.safetensors is damaged .*: save"):
        base_weights.load(network, str(directory), None)


@pytest.mark.parametrize(
    "content", ["", "no JSON", "[]", "{}", '{"model_type": "unknown"}', '{"hidden_size": 32}']
)
def test_a_configuration_of_no_network_is_named(tmp_path, dinov2_directory, content):
    directory = shutil.copytree(dinov2_directory, tmp_path / "damaged")
    (directory / "config.json").write_text(content)
    with pytest.raises(PretrainedError, match=r"damaged/config\.json is not the configuration"):
        networks.dinov2_config(probe(pretrained=str(directory)), 70, CLASSES)


def test_a_network_of_another_type_is_rejected(convnext_directory, dinov2_directory):
    with pytest.raises(PretrainedError, match="of type dinov2, where one of type convnextv2"):
        networks.convnext_config(model(pretrained=str(dinov2_directory)), 64, CLASSES)
    with pytest.raises(PretrainedError, match="of type convnextv2, where one of type dinov2"):
        networks.dinov2(probe(pretrained=str(convnext_directory)), 70, CLASSES)


def test_pickled_weights_are_rejected(tmp_path, convnext_directory):
    (tmp_path / "config.json").write_text((convnext_directory / "config.json").read_text())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(PretrainedError, match=r"no model\.safetensors"):
        base_weights.locate(str(tmp_path), None)


def test_a_name_that_is_neither_directory_nor_hub_id_is_rejected(tmp_path):
    with pytest.raises(PretrainedError, match="neither a directory nor a hub id"):
        base_weights.locate(str(tmp_path / "absent"), None)


def test_identity_is_that_of_the_content(tmp_path, convnext_directory):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.json", "model.safetensors"):
        (copy / name).write_bytes((convnext_directory / name).read_bytes())
    identity = base_weights.identity(str(convnext_directory), None)
    assert base_weights.identity(str(copy), None) == identity
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    assert base_weights.identity(str(copy), None) != identity
    assert base_weights.identity("facebook/dinov2-small", "abc") == "facebook/dinov2-small@abc"
    assert base_weights.identity(None, None) is None


def test_without_the_hub_the_error_says_what_could_not_be_reached(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UnreachableError, match="experiment=demo") as caught:
        base_weights.locate("facebook/dinov2-small", "ed25f3a31f01632728cabb09d1542f84ab7b0056")
    assert "http://127.0.0.1:9" in str(caught.value)


@pytest.mark.parametrize(
    ("status", "temporary"), [(403, False), (404, False), (429, True), (503, True)]
)
def test_only_a_busy_hub_may_answer_later(monkeypatch, tmp_path, status, temporary):
    def answer(*_, **__):
        response = Response(status, request=Request("GET", "http://hub.local"))
        raise HfHubHTTPError("no", response=response)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(base_weights.requests, "head", answer)
    with pytest.raises(PretrainedError) as caught:
        base_weights.locate("facebook/dinov2-small", None)
    assert isinstance(caught.value, UnreachableError) == temporary


def test_a_full_disk_is_not_the_hubs_fault(monkeypatch, tmp_path):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(base_weights.requests, "head", full)
    with pytest.raises(PretrainedError) as caught:
        base_weights.locate("facebook/dinov2-small", None)
    assert not isinstance(caught.value, UnreachableError)


def test_a_pinned_hub_id_in_the_cache_needs_no_network(monkeypatch, tmp_path, dinov2_directory):
    revision = "ed25f3a31f01632728cabb09d1542f84ab7b0056"
    snapshot = tmp_path / "models--facebook--dinov2-small" / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).write_bytes((dinov2_directory / name).read_bytes())
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert base_weights.locate("facebook/dinov2-small", revision) == snapshot
    config = networks.dinov2_config(probe(), 64, CLASSES)
    assert config["hidden_size"] == 32
