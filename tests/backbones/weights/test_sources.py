import hashlib
import http.server
import threading
import urllib.request

import huggingface_hub.errors
import pytest
import timm
import torch

from flatten_dense.backbones.weights import sources as weight_sources
from flatten_dense.backbones.weights.sources import fetch_weights

STATE = {"a.weight": torch.arange(6.0)}


@pytest.fixture
def file(tmp_path):
    torch.save(STATE, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


@pytest.fixture
def digest(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def requests(file, tmp_path, monkeypatch):
    """Serves the file's folder: torch.hub's https requests reach a local server. The list of what was asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(file.parent))

        def log_message(self, *_):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def urlopen(request):
        local = request.full_url.replace("https://example.org", f"http://127.0.0.1:{server.server_port}")
        return urllib.request.urlopen(local)

    monkeypatch.setattr(torch.hub, "urlopen", urlopen)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    yield asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("convert", [str, lambda path: path])
def test_a_file_by_path_or_text(file, convert):
    assert torch.equal(fetch_weights(convert(file)).tensors["a.weight"], STATE["a.weight"])


def test_a_file_with_another_checksum_is_refused(file, digest):
    assert fetch_weights(file, sha256=digest.upper())
    with pytest.raises(ValueError, match=f"its sha256 is {digest}, expected {'0' * 64}"):
        fetch_weights(file, sha256="0" * 64)


@pytest.mark.parametrize("source", ["missing.pth", "ftp://example.org/a.pth", "torchvision:resnet18"])
def test_an_unknown_source_lists_what_is_accepted(source):
    with pytest.raises(ValueError, match=r"(?s)" + source + r".*https://.*hf-hub:OWNER/NAME.*timm:NAME"):
        fetch_weights(source)


def test_a_url_is_fetched_once_and_kept_under_its_checksum(requests, digest, tmp_path):
    for _ in range(2):
        weights = fetch_weights("https://example.org/weights.pth?download=1", sha256=digest)
        assert torch.equal(weights.tensors["a.weight"], STATE["a.weight"])
    assert requests == ["/weights.pth?download=1"]
    assert [path.name for path in (tmp_path / "hub" / "checkpoints").iterdir()] == [f"weights-{digest}.pth"]


def test_a_damaged_copy_is_fetched_again(requests, digest, tmp_path):
    copy = tmp_path / "hub" / "checkpoints" / f"weights-{digest}.pth"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"half of it")
    assert fetch_weights("https://example.org/weights.pth", sha256=digest).tensors.keys() == STATE.keys()
    assert len(requests) == 1


def test_a_download_with_another_checksum_is_not_kept(requests, tmp_path):
    with pytest.raises(ValueError, match=f"sha256 {'0' * 64}.*invalid hash"):
        fetch_weights("https://example.org/weights.pth", sha256="0" * 64)
    assert list((tmp_path / "hub" / "checkpoints").iterdir()) == []


def test_a_url_without_checksum_is_refused_before_anything_is_fetched(requests):
    with pytest.raises(ValueError, match="#sha256=DIGITS with its 64 hexadecimal digits"):
        fetch_weights("https://example.org/weights.pth")
    assert requests == []


@pytest.mark.parametrize("sha256", ["abc", "z" * 64])
def test_a_checksum_that_is_none_is_refused(sha256):
    with pytest.raises(ValueError, match=f"64 hexadecimal digits, got '{sha256}'"):
        fetch_weights("https://example.org/weights.pth", sha256=sha256)


def test_an_unencrypted_url_is_refused(digest):
    with pytest.raises(ValueError, match="not encrypted"):
        fetch_weights("http://example.org/weights.pth", sha256=digest)


def test_a_url_that_is_not_there_is_a_value_error(requests, digest):
    with pytest.raises(ValueError, match=r"none\.pth could not be fetched.*404"):
        fetch_weights("https://example.org/none.pth", sha256=digest)


@pytest.mark.parametrize(
    ("source", "revision"), [("hf-hub:owner/name", None), ("hf-hub:owner/name@refs/pr/1", "refs/pr/1")]
)
@pytest.mark.parametrize("present", ["model.safetensors", "pytorch_model.bin"])
def test_the_hub_gives_safetensors_or_else_pickled_weights(monkeypatch, file, source, revision, present):
    def download(repository, name, revision):
        asked.append((repository, name, revision))
        if name != present:
            raise huggingface_hub.errors.EntryNotFoundError(f"no {name}")
        return str(file)

    asked = []
    monkeypatch.setattr(weight_sources, "hf_hub_download", download)
    assert fetch_weights(source).tensors.keys() == STATE.keys()
    assert asked[-1] == ("owner/name", present, revision)
    assert asked[0][1] == "model.safetensors"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (huggingface_hub.errors.EntryNotFoundError("no such entry"), "expected model.safetensors or pytorch_model.bin"),
        (huggingface_hub.errors.LocalEntryNotFoundError("cannot connect"), "could not be fetched: cannot connect"),
        (OSError("disk full"), "could not be fetched: disk full"),
    ],
)
def test_errors_of_the_hub_are_value_errors(monkeypatch, error, message):
    def download(*_, **__):
        raise error

    monkeypatch.setattr(weight_sources, "hf_hub_download", download)
    with pytest.raises(ValueError, match=message):
        fetch_weights("hf-hub:owner/name")


@pytest.mark.parametrize("name", ["name", "owner/name/more", "owner/na me"])
def test_a_name_that_is_no_repository_is_refused(name):
    with pytest.raises(ValueError, match="expected hf-hub:OWNER/NAME"):
        fetch_weights(f"hf-hub:{name}")


def test_weights_of_timm(monkeypatch):
    def create(name, pretrained):
        assert (name, pretrained) == ("pvt_v2_b0.in1k", True)
        return model

    model = timm.create_model("pvt_v2_b0")
    monkeypatch.setattr(weight_sources.timm, "create_model", create)
    weights = fetch_weights("timm:pvt_v2_b0.in1k")
    assert weights.tensors.keys() == model.state_dict().keys()
    assert weights.img_size == (224, 224)


def test_errors_of_timm_are_value_errors(monkeypatch):
    def create(*_, **__):
        raise RuntimeError("No pretrained weights exist")

    monkeypatch.setattr(weight_sources.timm, "create_model", create)
    with pytest.raises(ValueError, match="timm:resnet18 could not be fetched: No pretrained weights"):
        fetch_weights("timm:resnet18")


def test_a_model_that_timm_does_not_know_is_refused():
    with pytest.raises(ValueError, match="timm:resnet1800 is no model of timm"):
        fetch_weights("timm:resnet1800")


def test_weights_of_timm_have_no_checksum(digest):
    with pytest.raises(ValueError, match="leave out sha256"):
        fetch_weights("timm:resnet18", sha256=digest)
