"""Folders behind a URI: S3 and Google Cloud Storage by pyarrow, HTTP by the standard library.

Each reads whole files from their first byte to their last, which is all a store needs. One attempt at a time: timeouts
are short here, and whoever calls tries again.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Final, Protocol
from urllib.error import HTTPError
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import pyarrow.fs as pf

from ecgfair.errors import StoreError, did_you_mean

BLOCK: Final = 1 << 26
"""Bytes read at once. pyarrow asks S3 once a block, so most shards take one request, and memory stays bounded."""

_CONNECT_SECONDS: Final = 5
_STALL_SECONDS: Final = 10
_OPTIONS: Final = {
    "s3": ("region", "scheme", "endpoint_override", "anonymous"),
    "gs": ("scheme", "endpoint_override", "anonymous"),
    "http": (),
    "https": (),
}
"""What the query of a URI may say; that of a web address is the server's own, and may hold a secret."""

SCHEMES: Final = ("s3://", "gs://", "gcs://", "http://", "https://", "file://")
_BUCKET: Final = r"[\w.-]+"
_HOST: Final = r"([\w.-]+|\[[0-9a-fA-F:.]+\])(:\d+)?"
_PASSING: Final = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


class RemoteFolder(Protocol):
    """What a store needs of where it lies. Every method raises OSError if it can't, FileNotFoundError if it is not."""

    def blocks(self, name: str) -> Iterator[bytes]:
        """Read a file from its first byte to its last, at most ``BLOCK`` bytes at once."""

    def sizes(self) -> dict[str, int] | None:
        """Name and bytes of every file, by as few requests as can be; None where folders can't be listed."""

    def upload(self, name: str, source: Path) -> None:
        """Write a file, or replace it."""


@dataclass(frozen=True)
class Uri:
    """``scheme://[user:password@]host/path[?key=value&…]``, in its parts.

    ``str()`` leaves out login and query, which may be secret.

    Attributes:
        text: As given, with its secrets.
        scheme: Lower case; ``gcs`` is ``gs``.
        user: User name or access key, empty if there is none.
        password: Password or secret key, empty if there is none.
        host: Host and port, or the bucket.
        path: Decoded, without slashes around it.
        options: The query.
    """

    text: str = field(repr=False)
    scheme: str
    user: str = field(repr=False)
    password: str = field(repr=False)
    host: str
    path: str
    options: dict[str, str] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Uri:
        """Take a URI apart, see ``connect`` for what it may hold.

        Raises:
            StoreError: The scheme or an option is unknown, or there is no bucket or host.
        """
        try:
            parts = urlsplit(text, allow_fragments=False)
        except ValueError:
            raise StoreError("The store's location is no valid URI.") from None  # the cause quotes it, secrets included
        login, _, host = parts.netloc.rpartition("@")
        user, _, password = login.partition(":")
        scheme = "gs" if parts.scheme == "gcs" else parts.scheme
        path = unquote(parts.path).strip("/")
        uri = cls(text, scheme, unquote(user), unquote(password), host, path, dict(parse_qsl(parts.query)))
        uri._check()
        return uri

    @property
    def is_anonymous(self) -> bool:
        """No credentials are to be looked for; pyarrow's own URIs of Google's storage say it by the user's name."""
        return self.options.get("anonymous") == "true" or (self.scheme == "gs" and self.user == "anonymous")

    def _check(self) -> None:
        if self.scheme not in _OPTIONS:
            raise StoreError(f"{self} can't be used: {self.scheme}:// is none of {', '.join(SCHEMES)}.")
        if not self.host:
            raise StoreError(f"{self} names no bucket or host: write {self.scheme}://NAME/folder.")
        valid = _OPTIONS[self.scheme]
        if not re.fullmatch(_BUCKET if valid else _HOST, self.host):  # not shown: it may be the start of a password
            raise StoreError(
                f"What stands for the bucket or host in a {self.scheme}:// location is no name of one: in a key or "
                "password, write / as %2F, @ as %40."
            )
        for option in self.options if valid else ():
            if option not in valid:
                raise StoreError(f"{self} has an unknown option {option!r}.{did_you_mean(option, valid)}")
        if valid and self.options.get("anonymous", "false") not in ("true", "false"):
            raise StoreError(f"{self} says anonymous={self.options['anonymous']}: give true or false.")
        if self.scheme == "s3" and bool(self.user) != bool(self.password):
            raise StoreError(f"{self} holds an access key without its secret: give both as key:secret@, or none.")

    def __str__(self) -> str:
        login = "***@" if self.user or self.password else ""
        return f"{self.scheme}://{login}{self.host}/{self.path}".rstrip("/")

    def cleaned(self, error: BaseException) -> str:
        """Return an error's message on one line, without what is secret in this URI."""
        message = " ".join(str(error).split())
        secrets = [urlsplit(self.text).netloc.rpartition("@")[0], self.user, self.password]
        secrets += [value for key, value in self.options.items() if key not in _OPTIONS.get(self.scheme, ())]
        for secret in filter(None, secrets):
            message = message.replace(secret, "***").replace(quote(secret, safe=""), "***")
        return message if len(message) <= 300 else f"{message[:300]}…"


def connect(uri: Uri) -> RemoteFolder:
    """Return the folder a URI names.

    - ``s3://[key:secret@]bucket/path``, with ``?region=``, ``endpoint_override=`` (``host:port`` or a URL), ``scheme=``
      and ``anonymous=true``; without them ``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL`` and the usual AWS credentials.
    - ``gs://bucket/path`` or ``gcs://``, with ``?endpoint_override=``, ``scheme=`` and ``anonymous=true``; without them
      the application default credentials.
    - ``http://`` and ``https://[user:password@]host/path``; a query is sent with every request.

    Raises:
        OSError: The bucket's region can't be found out.
    """
    if uri.scheme == "s3":
        return _s3(uri)
    return _gcs(uri) if uri.scheme == "gs" else _HttpFolder(uri)


class _ArrowFolder:
    """A folder of an object store that pyarrow knows."""

    def __init__(self, filesystem: pf.FileSystem, uri: Uri) -> None:
        self._filesystem = filesystem
        self._base = f"{uri.host}/{uri.path}".rstrip("/")

    def blocks(self, name: str) -> Iterator[bytes]:
        with self._filesystem.open_input_stream(f"{self._base}/{name}") as stream:
            while block := stream.read(BLOCK):
                yield block

    def sizes(self) -> dict[str, int] | None:
        try:
            found = self._filesystem.get_file_info(pf.FileSelector(self._base))
        except FileNotFoundError:
            return {}
        except OSError as error:
            if "_DENIED" in str(error):  # public buckets often grant reading, but not listing
                return None
            raise
        return {info.base_name: info.size for info in found if info.type == pf.FileType.File}

    def upload(self, name: str, source: Path) -> None:
        with source.open("rb") as file, self._filesystem.open_output_stream(f"{self._base}/{name}") as stream:
            shutil.copyfileobj(file, stream, BLOCK)


def _s3(uri: Uri) -> RemoteFolder:
    named = uri.options.get("endpoint_override")
    endpoint = named or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    scheme, found, host = endpoint.rpartition("://")
    region = uri.options.get("region")
    if region is None and endpoint:  # asking the SDK would wait for the metadata service of EC2
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    filesystem = pf.S3FileSystem(
        access_key=uri.user or None,
        secret_key=uri.password or None,
        anonymous=uri.is_anonymous,
        region=region or pf.resolve_s3_region(uri.host),
        scheme=uri.options.get("scheme") or (scheme if found else "https"),
        endpoint_override=host.rstrip("/") or None,
        connect_timeout=_CONNECT_SECONDS,
        request_timeout=_STALL_SECONDS,
        retry_strategy=pf.AwsStandardS3RetryStrategy(max_attempts=1),
    )
    return _ArrowFolder(filesystem, uri)


def _gcs(uri: Uri) -> RemoteFolder:
    filesystem = pf.GcsFileSystem(
        anonymous=uri.is_anonymous,
        scheme=uri.options.get("scheme"),
        endpoint_override=uri.options.get("endpoint_override"),
        retry_time_limit=timedelta(seconds=_STALL_SECONDS),
    )
    return _ArrowFolder(filesystem, uri)


class _HttpFolder:
    """Files below a URL, by plain GET.

    The standard library is enough for whole files, and unlike an event loop in a thread it survives the fork of a
    DataLoader worker.
    """

    def __init__(self, uri: Uri) -> None:
        self._uri = uri
        self._query = urlsplit(uri.text, allow_fragments=False).query

    def blocks(self, name: str) -> Iterator[bytes]:
        uri = self._uri
        url = f"{uri.scheme}://{uri.host}/{quote(f'{uri.path}/{name}'.lstrip('/'))}"
        request = urllib.request.Request(f"{url}?{self._query}" if self._query else url)  # noqa: S310  # connect() admits http and https alone
        if uri.user or uri.password:
            login = base64.b64encode(f"{uri.user}:{uri.password}".encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {login}")  # another host must not learn it
        try:
            with urllib.request.urlopen(request, timeout=_STALL_SECONDS) as response:  # noqa: S310  # nosec B310  # as above
                while block := response.read(BLOCK):
                    yield block
        except HTTPError as error:
            error.close()
            if error.code in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
                raise FileNotFoundError(str(error)) from error
            if error.code < HTTPStatus.INTERNAL_SERVER_ERROR and error.code not in _PASSING:
                raise PermissionError(str(error)) from error
            raise

    def sizes(self) -> dict[str, int] | None:
        return None

    def upload(self, name: str, source: Path) -> None:
        raise PermissionError(f"{name} can't be written by HTTP")
