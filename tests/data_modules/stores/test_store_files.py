"""StoreFiles: the same files from a folder, S3, Google's storage and HTTP; what goes wrong is said, and soon."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import pickle
import socket
import traceback
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from data_modules.stores import remote_folder, store_files
from data_modules.stores.shard_cache import CacheSettings
from data_modules.stores.store_files import MANIFEST, LocalFiles, RemoteFiles
from ecgfair.errors import StoreError
from tests.data_modules.loopback import BUCKET, S3, Web, answer_with, cut_after, s3_server, web_server

SPAWN = multiprocessing.get_context("spawn")
NAMES = ("a.arrow", "b.arrow")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest and two files, not to be changed."""
    made = tmp_path_factory.mktemp("made")
    files = {}
    for number, name in enumerate(NAMES):
        content = bytes(range(256)) * (40 + number)
        (made / name).write_bytes(content)
        files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (made / MANIFEST).write_text(json.dumps({"files": files}))
    return made


@pytest.fixture(scope="module")
def entries(folder: Path) -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = json.loads((folder / MANIFEST).read_text())["files"]
    return entries


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[S3]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with s3_server() as server:
            server.upload(folder, "whole")
            yield server


@pytest.fixture
def s3(server: S3) -> Iterator[S3]:
    server.gets.clear()
    yield server
    server.fails = lambda _: None


@pytest.fixture
def web(folder: Path) -> Iterator[Web]:
    with web_server(folder) as server:
        yield server


@pytest.fixture
def google(folder: Path) -> Iterator[Web]:
    """As much of Google's JSON API as reading needs: media, metadata and lists of objects in ``bucket``."""

    def answer(request: SimpleHTTPRequestHandler) -> bool:
        path, _, query = request.path.partition("?")
        name = path.rpartition("%2F")[2]
        if path == "/storage/v1/b/bucket/o":
            items = [
                {"name": f"whole/{file.name}", "bucket": "bucket", "size": str(file.stat().st_size)}
                for file in folder.iterdir()
            ]
            body = json.dumps({"kind": "storage#objects", "items": items if "whole" in query else []}).encode()
        elif (folder / name).is_file() and "alt=media" in query:
            body = (folder / name).read_bytes()
        else:
            request.send_error(404)
            return True
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)
        return True

    with web_server(folder) as server:
        server.answer = answer
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> CacheSettings:
    return CacheSettings(tmp_path / "cache", 1_000_000)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses and timeouts, a hundredth and a tenth of what they are."""
    monkeypatch.setattr(store_files, "PAUSES", (0.005, 0.02))
    monkeypatch.setattr(remote_folder, "_STALL_SECONDS", 1)


@pytest.fixture(params=["folder", "file", "s3", "gs", "http"])
def location(request: pytest.FixtureRequest, folder: Path) -> str:
    def s3() -> str:
        server: S3 = request.getfixturevalue("s3")
        return server.uri("whole")

    def google() -> str:
        web: Web = request.getfixturevalue("google")
        return f"gs://anonymous@bucket/whole?scheme=http&endpoint_override={web.host}"

    def http() -> str:
        web: Web = request.getfixturevalue("web")
        return f"{web.url}/"

    kinds: dict[str, Callable[[], str]] = {
        "folder": lambda: str(folder),
        "file": lambda: folder.as_uri(),
        "s3": s3,
        "gs": google,
        "http": http,
    }
    return kinds[request.param]()


def test_every_kind_of_place_gives_the_same_files(
    location: str, folder: Path, entries: dict[str, dict[str, Any]], cache: CacheSettings
):
    files = store_files.store_files(location, cache)
    assert files.read(MANIFEST) == (folder / MANIFEST).read_bytes()
    for name, entry in entries.items():
        assert bytes(files.open(name, entry).map()) == (folder / name).read_bytes()
        assert files.checksum(name) == entry["sha256"]
        assert files.keeps(entry, use=True)
    sizes = files.sizes()
    assert sizes == (
        None if location.startswith("http") else {path.name: path.stat().st_size for path in folder.iterdir()}
    )


def test_what_is_not_there_is_told_in_the_same_way(
    location: str, entries: dict[str, dict[str, Any]], cache: CacheSettings
):
    files = store_files.store_files(location, cache)
    with pytest.raises(FileNotFoundError, match=r"nothing\.json is missing"):
        files.read("nothing.json")
    with pytest.raises(StoreError, match=r"nothing\.arrow"):
        files.open("nothing.arrow", entries["a.arrow"] | {"sha256": 64 * "0"})
    with pytest.raises(StoreError, match=r"nothing\.arrow"):
        files.checksum("nothing.arrow")


def test_a_local_store_is_used_in_place(folder: Path, entries: dict[str, dict[str, Any]], tmp_path: Path):
    files = store_files.store_files(folder, CacheSettings(tmp_path / "cache", 1))
    assert isinstance(files, LocalFiles)
    assert bytes(files.open("a.arrow", entries["a.arrow"]).map()) == (folder / "a.arrow").read_bytes()
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_fetched_by_one_request_and_not_again(
    s3: S3, entries: dict[str, dict[str, Any]], cache: CacheSettings
):
    for _ in range(2):
        files = store_files.store_files(s3.uri("whole"), cache)
        for name, entry in entries.items():
            files.open(name, entry)
    assert s3.gets == {"a.arrow": 1, "b.arrow": 1}


def test_a_file_larger_than_a_block_comes_whole(
    s3: S3, folder: Path, entries: dict[str, dict[str, Any]], cache: CacheSettings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(remote_folder, "BLOCK", 4096)
    files = store_files.store_files(s3.uri("whole"), cache)
    assert bytes(files.open("a.arrow", entries["a.arrow"]).map()) == (folder / "a.arrow").read_bytes()
    assert s3.gets == {"a.arrow": 3}


def test_the_endpoint_and_the_keys_may_be_in_the_environment_or_in_the_uri(
    s3: S3, cache: CacheSettings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{s3.endpoint}")
    assert store_files.store_files(f"s3://{BUCKET}/whole", cache).read(MANIFEST)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert store_files.store_files(s3.uri("whole", "key:secret@"), cache).read(MANIFEST)


def test_a_public_bucket_needs_no_keys(s3: S3, cache: CacheSettings):
    s3.client.put_object(Bucket=BUCKET, Key="public/open", Body=b"all", ACL="public-read")
    s3.client.put_object(Bucket=BUCKET, Key="public/closed", Body=b"some")
    files = store_files.store_files(f"{s3.uri('public')}&anonymous=true", cache)
    assert files.read("open") == b"all"
    with pytest.raises(StoreError, match="ACCESS_DENIED"):
        files.read("closed")


def test_a_name_and_password_go_to_the_server_they_are_for(web: Web, cache: CacheSettings):
    def send_elsewhere(request: SimpleHTTPRequestHandler) -> bool:
        if request.path.startswith("/moved"):
            return False
        request.send_response(302)
        request.send_header("Location", f"/moved/{MANIFEST}")
        request.send_header("Content-Length", "0")
        request.end_headers()
        return True

    web.answer = send_elsewhere
    uri = f"http://me:se%2Fcret@{web.host}?token=t0ken"
    with pytest.raises(FileNotFoundError, match=r"^http://\*\*\*@127.0.0.1:\d+/manifest.json is missing"):
        store_files.store_files(uri, cache).read(MANIFEST)
    assert web.requests == [(f"/{MANIFEST}?token=t0ken", "Basic bWU6c2UvY3JldA=="), (f"/moved/{MANIFEST}", None)]


def test_a_failure_that_passes_is_tried_again(
    s3: S3, folder: Path, entries: dict[str, dict[str, Any]], cache: CacheSettings
):
    statuses = iter([503, 500])
    s3.fails = lambda _: next(statuses, None)
    files = store_files.store_files(s3.uri("whole"), cache)
    assert bytes(files.open("a.arrow", entries["a.arrow"]).map()) == (folder / "a.arrow").read_bytes()


def test_a_connection_that_is_cut_is_tried_again(
    web: Web, folder: Path, entries: dict[str, dict[str, Any]], cache: CacheSettings
):
    cut = cut_after(5000)
    web.answer = lambda request: len(web.requests) < 3 and cut(request)
    files = store_files.store_files(web.url, cache)
    assert bytes(files.open("a.arrow", entries["a.arrow"]).map()) == (folder / "a.arrow").read_bytes()
    assert len(web.requests) == 3


def test_a_connection_that_is_always_cut_is_an_error_and_leaves_nothing(
    web: Web, entries: dict[str, dict[str, Any]], cache: CacheSettings
):
    web.answer = cut_after(5000)
    files = store_files.store_files(web.url, cache)
    with pytest.raises(StoreError, match=r"a\.arrow failed 3 times \(.*: check address, network"):
        files.open("a.arrow", entries["a.arrow"])
    assert [path.name for path in cache.folder.iterdir()] == ["locks"]


@pytest.mark.parametrize(("status", "requests"), [(403, 1), (401, 1), (429, 3), (500, 3)])
def test_a_refusal_is_not_tried_again_but_a_busy_server_is(web: Web, cache: CacheSettings, status: int, requests: int):
    web.answer = answer_with(status)
    with pytest.raises(StoreError, match=rf"^{web.url}/manifest.json .*HTTP Error {status}"):
        store_files.store_files(web.url, cache).read(MANIFEST)
    assert len(web.requests) == requests


@pytest.mark.parametrize("change", [lambda data: data[:-1] + b"x", lambda data: data + b"x"])
def test_a_damaged_file_is_named_and_not_kept(
    s3: S3, folder: Path, entries: dict[str, dict[str, Any]], cache: CacheSettings, change: Callable[[bytes], bytes]
):
    s3.client.put_object(Bucket=BUCKET, Key="bad/a.arrow", Body=change((folder / "a.arrow").read_bytes()))
    files = store_files.store_files(s3.uri("bad"), cache)
    with pytest.raises(StoreError, match=r"^s3://bucket/bad/a\.arrow is damaged: it is not the 10240 bytes"):
        files.open("a.arrow", entries["a.arrow"])
    assert [path.name for path in cache.folder.iterdir()] == ["locks"]


@pytest.mark.parametrize(
    "entry",
    [{}, {"bytes": 5, "sha256": "../../x"}, {"bytes": "5", "sha256": 64 * "0"}, {"bytes": 0, "sha256": 64 * "0"}],
)
def test_an_entry_that_is_none_is_refused_before_anything_is_fetched(
    s3: S3, cache: CacheSettings, entry: dict[str, Any]
):
    with pytest.raises(StoreError, match=r"manifest\.json.* is damaged: size or SHA-256 of a\.arrow"):
        store_files.store_files(s3.uri("whole"), cache).open("a.arrow", entry)
    assert s3.gets == {}


def test_a_bucket_that_may_be_read_but_not_listed_has_sizes_unknown(s3: S3, cache: CacheSettings):
    s3.fails = lambda path: 403 if path.strip("/") == BUCKET else None
    assert store_files.store_files(s3.uri("whole"), cache).sizes() is None


def test_a_bucket_that_is_missing_is_a_missing_file(s3: S3, cache: CacheSettings):
    uri = s3.uri("whole").replace(BUCKET, "no-such-bucket")
    with pytest.raises(FileNotFoundError, match=r"s3://no-such-bucket/whole/manifest\.json is missing"):
        store_files.store_files(uri, cache).read(MANIFEST)


def test_keys_that_are_refused_are_an_error_without_them(s3: S3, cache: CacheSettings):
    s3.fails = lambda _: 403
    key, secret = "MYKEY", "MYSECRET"
    uri = s3.uri("whole", f"{key}:{secret}@")
    with pytest.raises(StoreError, match=r"^s3://\*\*\*@bucket/whole/manifest\.json .*ACCESS_DENIED") as caught:
        store_files.store_files(uri, cache).read(MANIFEST)
    told = "".join(traceback.format_exception(caught.value))
    assert "read" in told
    assert f"{key}:" not in told
    assert f":{secret}" not in told


@pytest.mark.usefixtures("server")  # for the keys in the environment
@pytest.mark.parametrize("scheme", ["s3://bucket?scheme=http&endpoint_override=", "http://"])
def test_a_server_that_is_not_there_is_an_error(cache: CacheSettings, scheme: str):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"{scheme}127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(StoreError, match=r"manifest\.json.* failed 3 times .*onnect.*: check address, network"):
            store_files.store_files(uri, cache).read(MANIFEST)


@pytest.mark.usefixtures("server")  # for the keys in the environment
@pytest.mark.parametrize("scheme", ["s3://bucket?scheme=http&endpoint_override=", "http://"])
def test_a_server_that_never_answers_is_an_error(cache: CacheSettings, scheme: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store_files, "PAUSES", (0.005,))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"{scheme}127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(StoreError, match=r"manifest\.json.* failed 2 times .*([tT]imed? ?out|too slow)"):
            store_files.store_files(uri, cache).read(MANIFEST)


def test_files_travel_to_another_process_and_are_fetched_once(
    s3: S3, folder: Path, entries: dict[str, dict[str, Any]], cache: CacheSettings
):
    files = store_files.store_files(s3.uri("whole"), cache)
    assert files.read(MANIFEST)  # so that it is connected before it is sent
    with SPAWN.Pool(2) as pool:
        found = pool.starmap(read, [(files, "a.arrow", entries["a.arrow"])] * 4, chunksize=1)
    assert found == [(folder / "a.arrow").read_bytes()] * 4
    assert s3.gets["a.arrow"] == 1


def read(files: RemoteFiles, name: str, entry: dict[str, Any]) -> bytes:
    return bytes(files.open(name, entry).map())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # that threads are running is the point of the test
def test_a_forked_process_connects_anew(s3: S3, entries: dict[str, dict[str, Any]], cache: CacheSettings):
    files = store_files.store_files(s3.uri("whole"), cache)
    assert files.read(MANIFEST)
    process = multiprocessing.get_context("fork").Process(target=read, args=(files, "a.arrow", entries["a.arrow"]))
    process.start()
    process.join(30)
    assert process.exitcode == 0
    assert files.open("a.arrow", entries["a.arrow"])
    assert s3.gets["a.arrow"] == 1


def test_pickled_files_keep_place_and_cache(cache: CacheSettings):
    files = pickle.loads(pickle.dumps(store_files.store_files("s3://key:secret@bucket/a", cache)))  # noqa: S301  # made here
    assert files.location == "s3://***@bucket/a"
    assert files._settings == cache
    assert files._uri.text == "s3://key:secret@bucket/a"


def test_a_place_that_can_t_work_is_refused_at_once(cache: CacheSettings):
    with pytest.raises(StoreError, match="ftp:// is none of s3://"):
        store_files.store_files("ftp://host/a", cache)
    with pytest.raises(StoreError, match="s3:// location was made a path: give it as text"):
        store_files.store_files(Path("s3://bucket/a"), cache)
    with pytest.raises(StoreError, match="file://host/a names another machine"):
        store_files.store_files("file://host/a", cache)


def test_the_cache_is_the_environment_s_if_none_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("ECGFAIR_CACHE", str(tmp_path))
    monkeypatch.setenv("ECGFAIR_CACHE_BYTES", "3GB")
    files = store_files.store_files("s3://bucket/a")
    assert isinstance(files, RemoteFiles)
    assert files._settings == CacheSettings(tmp_path, 3_000_000_000)
