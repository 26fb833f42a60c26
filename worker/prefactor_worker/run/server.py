"""The server for metrics and probes: a thread of its own, so that it answers while the event loop is busy."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from prefactor_worker.run.health import Health, Verdict

_TIMEOUT: Final = 5.0


class ListenError(Exception):
    """The port for metrics and probes cannot be had."""


@contextmanager
def serving(host: str, port: int, registry: CollectorRegistry, health: Health) -> Iterator[int]:
    """Serve for the length of a ``with``, which yields the port.

    Raises:
        ListenError: It cannot listen there.
    """

    class Handler(BaseHTTPRequestHandler):
        """Answers three paths."""

        timeout = _TIMEOUT

        def do_GET(self) -> None:
            """Answer."""
            path = self.path.partition("?")[0]
            if path == "/metrics":
                encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                self._answer(200, content_type, encode(registry))
            elif path == "/healthz":
                self._say(health.alive())
            elif path == "/readyz":
                self._say(health.ready())
            else:
                self._answer(404, "text/plain", b"try /metrics, /healthz or /readyz\n")

        def _say(self, verdict: Verdict) -> None:
            status = 200 if verdict.good else 503
            self._answer(status, "text/plain; charset=utf-8", f"{verdict.words}\n".encode())

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the library's name
            """Say nothing: a probe every few seconds would be most of the log."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise ListenError(f"cannot listen on {host}:{port}: {error.strerror}; choose another, or 0") from None
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="prefactor-metrics", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join(_TIMEOUT)
        server.server_close()
