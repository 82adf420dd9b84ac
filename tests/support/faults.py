"""An HTTP proxy before a real server that counts requests and can fail them in known ways."""

import http.client
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import urlsplit

Fault = Callable[["Request"], str]
"""Says of a request: "pass", "busy" (503), "cut" (closed unanswered) or "half" (answer cut off)."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str


@dataclass
class Proxy:
    """A running proxy; ``fault`` may be changed at any time."""

    target: str
    fault: Fault = lambda request: "pass"
    slow: float = 0.0  # seconds that each request takes longer
    requests: list[Request] = field(default_factory=list)
    failed: int = 0
    endpoint: str = ""
    lock: Lock = field(default_factory=Lock)

    def count(self, method: str, part: str) -> int:
        """Return how many requests of a method had a part in their path."""
        with self.lock:
            return sum(one.method == method and part in one.path for one in self.requests)


def until(seconds: float, fault: str) -> Fault:
    """Return a fault of all requests that ends some seconds from now."""
    end = time.monotonic() + seconds
    return lambda request: fault if time.monotonic() < end else "pass"


@contextmanager
def proxy(target: str) -> Iterator[Proxy]:
    """Run a proxy before a server."""
    running = Proxy(target)

    class Server(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

        def handle_error(self, request, client_address):
            pass  # clients that are killed are part of the tests

    class Handler(_Handler):
        proxied = running

    server = Server(("127.0.0.1", 0), Handler)
    running.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxied: Proxy

    def _handle(self) -> None:
        request = Request(self.command, self.path)
        fault = self.proxied.fault(request)
        with self.proxied.lock:
            self.proxied.requests.append(request)
            self.proxied.failed += fault != "pass"
        time.sleep(self.proxied.slow)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault == "cut":
            self._close()
        elif fault == "busy":
            self._answer_busy()
        else:
            self._forward(body, half=fault == "half")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle

    def _forward(self, body: bytes, half: bool) -> None:
        connection = http.client.HTTPConnection(urlsplit(self.proxied.target).netloc, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() != "transfer-encoding":
                self.send_header(name, value)
        length = answer.getheader("Content-Length")
        if length is None and self.command != "HEAD":
            content = answer.read()
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        else:
            self.end_headers()
            self._stream(answer, int(length or 0) // 2 if half else None)
        connection.close()

    def _stream(self, answer: http.client.HTTPResponse, limit: int | None) -> None:
        sent = 0
        while chunk := answer.read(1 << 16):
            self.wfile.write(chunk if limit is None else chunk[: limit - sent])
            sent += len(chunk)
            if limit is not None and sent >= limit:
                self._close()
                return

    def _answer_busy(self) -> None:
        content = b"<Error><Code>SlowDown</Code><Message>later</Message></Error>"
        self.send_response_only(503, "Slow Down")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _close(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format, *args):
        pass
