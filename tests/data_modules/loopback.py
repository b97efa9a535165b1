"""Servers on loopback for the tests of remote stores: moto's S3, and a folder over HTTP. Both count and can fail."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

BUCKET = "bucket"


class S3:
    """moto's S3 server with one bucket.

    Attributes:
        endpoint: ``host:port``.
        gets: Name of a file -> how often its content was asked for.
        fails: Path of a request -> a status to answer, or None to let moto answer.
    """

    def __init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.endpoint = f"127.0.0.1:{self._server.port}"
        self.gets: Counter[str] = Counter()
        self.fails: Callable[[str], int | None] = lambda _: None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.client = boto3.client("s3", endpoint_url=f"http://{self.endpoint}", region_name="us-east-1")
        self.client.create_bucket(Bucket=BUCKET)

    def uri(self, folder: str, login: str = "") -> str:
        return f"s3://{login}{BUCKET}/{folder}?scheme=http&endpoint_override={self.endpoint}"

    def upload(self, folder: Path, to: str) -> None:
        for path in folder.iterdir():
            self.client.put_object(Bucket=BUCKET, Key=f"{to}/{path.name}", Body=path.read_bytes())

    def names(self, folder: str) -> set[str]:
        listed = self.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{folder}/").get("Contents", [])
        return {entry["Key"].removeprefix(f"{folder}/") for entry in listed}

    def close(self) -> None:
        self.fails = lambda _: None
        # moto keeps what it is told as long as the process lives.
        forget = Request(f"http://{self.endpoint}/moto-api/reset", method="POST")
        urlopen(forget).close()  # noqa: S310  # its own address
        self.client.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environment: dict[str, Any], start: Any) -> Any:
        method, path = environment["REQUEST_METHOD"], environment["PATH_INFO"]
        status = self.fails(path)
        if status is not None:
            return Response(status=status)(environment, start)
        if method == "GET":
            self.gets[path.rpartition("/")[2]] += 1
        return self._moto(environment, start)


@contextmanager
def s3_server() -> Iterator[S3]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request otherwise
    server = S3()
    try:
        yield server
    finally:
        server.close()


class Web:
    """A folder over HTTP.

    Attributes:
        url: Of the folder.
        requests: (path with query, Authorization header) of every request, in order.
        answer: Handles a request in another way and returns true, or returns false.
    """

    def __init__(self, folder: Path) -> None:
        self.requests: list[tuple[str, str | None]] = []
        self.answer: Callable[[SimpleHTTPRequestHandler], bool] = lambda _: False
        web = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                web.requests.append((self.path, self.headers.get("Authorization")))
                if not web.answer(self):
                    super().do_GET()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def web_server(folder: Path) -> Iterator[Web]:
    server = Web(folder)
    try:
        yield server
    finally:
        server.close()


def answer_with(status: int) -> Callable[[SimpleHTTPRequestHandler], bool]:
    """Return what answers every request with this status."""

    def answer(request: SimpleHTTPRequestHandler) -> bool:
        request.send_error(status)
        return True

    return answer


def cut_after(count: int) -> Callable[[SimpleHTTPRequestHandler], bool]:
    """Return what sends ``count`` bytes of a file and hangs up."""

    def answer(request: SimpleHTTPRequestHandler) -> bool:
        content = Path(request.translate_path(request.path)).read_bytes()
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[:count])
        return True

    return answer
