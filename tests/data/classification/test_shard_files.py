import io
import pickle
import shutil
import tarfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from flatten_dense.data.classification.shard_files import Shard, ShardIndex, read_shard, write_shard
from flatten_dense.data.images import DataError

pytest.importorskip("webdataset")


@pytest.fixture
def photos(image_folder):
    root = image_folder(num=2, splits=("train",))
    return [(path, index % 2, path.name) for index, path in enumerate(sorted(root.rglob("*.png")))]


def write_tar(path: Path, members: dict[str, bytes], samples: int = 1) -> Shard:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return Shard(path.name, samples, path.stat().st_size)


def test_what_goes_in_comes_out(photos, tmp_path):
    shard = write_shard(tmp_path / "a.tar", photos, 7)
    assert shard == Shard("a.tar", 4, (tmp_path / "a.tar").stat().st_size)
    expected = [(path.read_bytes(), label, name) for path, label, name in photos]
    assert [tuple(photo) for photo in read_shard(str(tmp_path), shard, 2)] == expected


def test_any_tar_program_reads_them(photos, tmp_path):
    write_shard(tmp_path / "a.tar", photos, 7)
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert tar.getnames()[:4] == ["000000007.cls", "000000007.path", "000000007.png", "000000008.cls"]


def test_the_same_photos_give_the_same_file(photos, tmp_path):
    for name in ("a.tar", "b.tar"):
        write_shard(tmp_path / name, photos, 0)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_what_is_no_photo_does_not_get_in(photos, tmp_path):
    photos[1][0].write_text("not a photo")
    with pytest.raises(DataError, match=f"{photos[1][0].name}: not a readable image"):
        write_shard(tmp_path / "a.tar", photos, 0)
    assert not (tmp_path / "a.tar").exists()


def test_shards_of_others_need_no_path(photos, tmp_path):
    shard = write_tar(tmp_path / "a.tar", {"x/1.JPG": b"jpeg", "x/1.cls": b"1", "x/1.json": b"{}"})
    (photo,) = read_shard(str(tmp_path), shard, 2)
    assert photo == (b"jpeg", 1, f"{tmp_path}/a.tar/x/1")


@pytest.mark.parametrize("left", [0, 700, 4096])
def test_a_shard_cut_short_is_named(photos, tmp_path, left):
    shard = write_shard(tmp_path / "a.tar", photos, 0)
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[:left])
    with pytest.raises(DataError, match=rf"a\.tar: has {left} bytes, expected {shard.size}; copy it anew"):
        read_shard(str(tmp_path), shard, 2)


def test_a_shard_that_is_no_tar_file_is_named(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"x" * 2000)
    with pytest.raises(DataError, match=r"a\.tar: not a readable tar file"):
        read_shard(str(tmp_path), Shard("a.tar", 1, 2000), 2)


def test_a_missing_shard_is_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.tar: no such file, but shards\.json names it"):
        read_shard(str(tmp_path), Shard("a.tar", 1, 2000), 2)


def test_another_number_of_photos_is_an_error(tmp_path):
    shard = write_tar(tmp_path / "a.tar", {"1.jpg": b"jpeg", "1.cls": b"1"}, samples=2)
    with pytest.raises(DataError, match=r"a\.tar: holds 1 photos, expected 2"):
        read_shard(str(tmp_path), shard, 2)


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit",)


@pytest.mark.parametrize(
    "members",
    [
        {"1.pyd": pickle.dumps(Bomb()), "1.cls": b"0"},
        {"1.jpg": b"jpeg", "1.pickle": pickle.dumps(Bomb())},
        {"1.jpg": b"jpeg", "1.cls": pickle.dumps(Bomb())},
        {"1.jpg": b"jpeg", "1.cls": b"2"},
        {"1.jpg": b"jpeg", "1.cls": b"-1"},
        {"1.jpg": b"jpeg", "1.png": b"png", "1.cls": b"0"},
    ],
)
def test_only_one_photo_and_a_number_are_read(tmp_path, members):
    shard = write_tar(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match=r"a\.tar, sample 1: .* expected"):
        read_shard(str(tmp_path), shard, 2)


def test_an_index_is_read_as_it_was_written(tmp_path):
    index = ShardIndex(("cat", "dög"), (Shard("a.tar", 2, 10240), Shard("b.tar", 1, 5120)))
    index.write(tmp_path)
    assert ShardIndex.read(str(tmp_path)) == index


def test_an_index_that_is_not_there_says_how_to_make_it(tmp_path):
    with pytest.raises(DataError, match=r"shards\.json: no such file; `flatten-dense make-shards FOLDER OUT`"):
        ShardIndex.read(str(tmp_path))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"format": 1', '"format": 2'),
        ('"samples": 2', '"samples": "2"'),
        ('"samples": 2', '"samples": -2'),
        ('"a.tar"', '"../a.tar"'),
        ('"a.tar"', '"-o"'),
        ('"a.tar"', "null"),
        ('"name"', '"file"'),
        ('"classes"', '"names"'),
        ("{", ""),
    ],
)
def test_an_index_with_anything_else_in_it_is_refused(tmp_path, right, wrong):
    ShardIndex(("cat", "dog"), (Shard("a.tar", 2, 10240),)).write(tmp_path)
    text = (tmp_path / "shards.json").read_text()
    assert right in text
    (tmp_path / "shards.json").write_text(text.replace(right, wrong, 1))
    with pytest.raises(DataError, match=r"shards\.json: not an index of shards"):
        ShardIndex.read(str(tmp_path))


@pytest.mark.parametrize("url", ["pipe:touch canary #", "pipe://touch canary #", "ssh://there", "s3://there"])
def test_a_url_that_runs_a_command_is_refused(tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError):
        ShardIndex.read(url)
    assert not any(tmp_path.iterdir())


@pytest.fixture
def url(tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("WebDataset fetches with curl")
    serve = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_shards_are_fetched_from_a_url(photos, tmp_path, url):
    shard = write_shard(tmp_path / "a.tar", photos, 0)
    ShardIndex(("cat", "dog"), (shard,)).write(tmp_path)
    assert ShardIndex.read(url) == ShardIndex.read(str(tmp_path))
    assert read_shard(url, shard, 2) == read_shard(str(tmp_path), shard, 2)


def test_what_cannot_be_fetched_is_named(tmp_path, url):
    with pytest.raises(
        DataError, match=rf"^{url}/shards\.json: cannot be fetched \(curl ended with status 22\); check"
    ):
        ShardIndex.read(url)
