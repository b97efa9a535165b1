"""URIs: taken apart as meant, shown without their secrets, refused with what would be right."""

from __future__ import annotations

import pytest

from data_modules.stores.remote_folder import Uri
from ecgfair.errors import StoreError


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("s3://bucket/a/b/", ("s3", "", "", "bucket", "a/b", {})),
        ("s3://key:se%2Fcret@bucket/a%20b", ("s3", "key", "se/cret", "bucket", "a b", {})),
        ("s3://bucket/a#1?region=eu-west-1", ("s3", "", "", "bucket", "a#1", {"region": "eu-west-1"})),
        ("gcs://bucket?anonymous=true", ("gs", "", "", "bucket", "", {"anonymous": "true"})),
        ("HTTPS://host:8080/x", ("https", "", "", "host:8080", "x", {})),
    ],
)
def test_a_uri_is_taken_apart(text: str, parts: tuple[object, ...]):
    uri = Uri.parse(text)
    assert (uri.scheme, uri.user, uri.password, uri.host, uri.path, uri.options) == parts


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:secret@bucket/a?region=eu-west-1", "s3://***@bucket/a"),
        ("https://me:secret@host/a?token=secret&x=secret", "https://***@host/a"),
        ("gs://bucket/", "gs://bucket"),
    ],
)
def test_a_uri_is_shown_without_login_and_query(text: str, shown: str):
    uri = Uri.parse(text)
    assert str(uri) == f"{uri}" == shown
    assert "secret" not in repr(uri)


def test_an_error_is_told_on_one_line_without_what_is_secret():
    uri = Uri.parse("https://me:se%2Fcret@host/a?token=t0ken")
    error = OSError("GET https://me:se%2Fcret@host/a?token=t0ken\n   failed for me with se/cret")
    assert uri.cleaned(error) == "GET https://***@host/a?token=*** failed for *** with ***"
    assert len(uri.cleaned(OSError("x" * 1000))) == 301


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ftp://host/a", r"ftp:// is none of s3://, gs://, gcs://, http://, https://, file://\.$"),
        ("ssh://me:secret@host/a", r"^ssh://\*\*\*@host/a can't be used"),
        ("s3:///a", r"names no bucket or host: write s3://NAME/folder"),
        ("s3://bucket/a?regoin=x", r"unknown option 'regoin'\. Did you mean 'region'\?"),
        ("gs://bucket/a?region=x", r"unknown option 'region'\. Valid: scheme, endpoint_override, anonymous"),
        ("s3://bucket/a?anonymous=yes", r"anonymous=yes: give true or false"),
        ("s3://key@bucket/a", r"^s3://\*\*\*@bucket/a holds an access key without its secret"),
        ("http://[::1/a", r"no valid URI"),
    ],
)
def test_a_uri_that_can_t_work_is_refused(text: str, message: str):
    with pytest.raises(StoreError, match=message):
        Uri.parse(text)


@pytest.mark.parametrize(
    "text", ["s3://key:sec/ret@bucket/a", "https://me:sec/ret@host/a", "http://[sec:ret@host/a", "http://sec℀ret/a"]
)
def test_a_secret_that_is_not_escaped_is_not_shown_either(text: str):
    with pytest.raises(StoreError, match=r"location is no") as caught:
        Uri.parse(text)
    assert "sec" not in str(caught.value)
    assert caught.value.__cause__ is None
