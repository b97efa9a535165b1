"""publish: a store goes behind a URI whole, or is no store there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_modules.stores import store_files
from data_modules.stores.publish import publish
from data_modules.stores.store_files import MANIFEST
from ecgfair.errors import StoreError
from tests.data_modules.loopback import S3, s3_server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A manifest and two files."""
    made = tmp_path / "made"
    made.mkdir()
    files = {}
    for name in ("records.parquet", "signals-00000.arrow"):
        (made / name).write_text(f"content of {name}")
        content = (made / name).read_bytes()
        files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (made / MANIFEST).write_text(json.dumps({"files": files}))
    return made


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(store_files, "PAUSES", (0.005,))
    with s3_server() as server:
        yield server


def test_every_file_arrives_as_it_was(s3: S3, folder: Path):
    publish(folder, s3.uri("new"))
    assert s3.names("new") == {path.name for path in folder.iterdir()}
    for path in folder.iterdir():
        found = s3.client.get_object(Bucket="bucket", Key=f"new/{path.name}")["Body"].read()
        assert found == path.read_bytes()


def test_what_is_no_part_of_the_store_is_not_copied_and_that_is_said(
    s3: S3, folder: Path, capsys: pytest.CaptureFixture[str]
):
    (folder / "truth").mkdir()
    (folder / "notes.txt").touch()
    publish(folder, s3.uri("new"))
    assert s3.names("new") == {"records.parquet", "signals-00000.arrow", MANIFEST}
    assert f"Not copied, since {MANIFEST} does not list it: notes.txt, truth.\n" in capsys.readouterr().out


def test_the_manifest_goes_last_so_that_half_a_store_is_none(s3: S3, folder: Path):
    s3.fails = lambda path: 500 if path.endswith("signals-00000.arrow") else None
    with pytest.raises(StoreError, match=r"signals-00000\.arrow failed 2 times"):
        publish(folder, s3.uri("new"))
    assert s3.names("new") == {"records.parquet"}
    s3.fails = lambda _: None
    publish(folder, s3.uri("new"))
    assert MANIFEST in s3.names("new")


def test_a_store_that_is_there_is_not_touched(s3: S3, folder: Path):
    publish(folder, s3.uri("new"))
    (folder / MANIFEST).write_text(json.dumps({"files": {}}))
    with pytest.raises(StoreError, match=r"s3://bucket/new holds a store already: remove it"):
        publish(folder, s3.uri("new"))
    assert s3.client.head_object(Bucket="bucket", Key=f"new/{MANIFEST}")["ContentLength"] > 100


def test_a_damaged_file_stops_it(s3: S3, folder: Path):
    (folder / "signals-00000.arrow").write_text("CONTENT of signals-00000.arrow")
    with pytest.raises(StoreError, match=r"signals-00000\.arrow is damaged: its SHA-256"):
        publish(folder, s3.uri("new"))
    assert MANIFEST not in s3.names("new")


def test_a_file_of_another_size_stops_it_before_anything_goes(s3: S3, folder: Path):
    (folder / "signals-00000.arrow").unlink()
    with pytest.raises(StoreError, match=r"signals-00000\.arrow has None bytes, manifest\.json says 30"):
        publish(folder, s3.uri("new"))
    assert s3.names("new") == set()


@pytest.mark.parametrize("manifest", ["{", "[]", "{}", '{"files": {"a": {}}}', '{"files": {"a": 3}}'])
def test_a_damaged_manifest_is_named(folder: Path, manifest: str):
    (folder / MANIFEST).write_text(manifest)
    with pytest.raises(StoreError, match=r"manifest\.json is damaged"):
        publish(folder, "s3://bucket/new")


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path):
    with pytest.raises(StoreError, match="is no finished RecordStore"):
        publish(tmp_path, "s3://bucket/new")


@pytest.mark.parametrize("location", ["http://host/new", "file:///new", "/new"])
def test_a_place_that_can_t_be_written_is_refused(folder: Path, location: str):
    with pytest.raises(StoreError, match="is neither s3:// nor gs://"):
        publish(folder, location)


def test_a_bucket_that_is_missing_is_named(s3: S3, folder: Path):
    with pytest.raises(StoreError, match=r"s3://no-bucket/new/records\.parquet .*(missing|NO_SUCH_BUCKET|NotFound)"):
        publish(folder, s3.uri("new").replace("//bucket/", "//no-bucket/"))
