"""A Docker engine that answers from a table, in the shapes that dockerd 20.10 and 24 answer with."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator

EPOCH = "0001-01-01T00:00:00Z"
VERSION = {
    "Platform": {"Name": "Docker Engine - Community"},
    "Components": [{"Name": "Engine", "Version": "24.0.7", "Details": {"ApiVersion": "1.43"}}],
    "Version": "24.0.7",
    "ApiVersion": "1.43",
    "MinAPIVersion": "1.12",
    "Os": "linux",
}


def container(
    id: str,
    name: str,
    *,
    mode: str = "bridge",
    pid: int | None = None,
    labels: dict[str, str] | None = None,
    address: str = "",
    finished: str = EPOCH,
) -> dict[str, object]:
    """As `GET /containers/ID/json` shows it; `pid=None` has ended."""
    running = pid is not None
    return {
        "Id": id,
        "Created": "2026-11-24T21:00:00.123456789Z",
        "Name": f"/{name}",
        "Image": "sha256:" + "ab" * 32,
        "State": {
            "Status": "running" if running else "exited",
            "Running": running,
            "Pid": pid or 0,
            "StartedAt": "2026-11-24T21:00:01.5Z",
            "FinishedAt": finished,
        },
        "Config": {"Image": "nginx:1.25", "Labels": labels or {}, "Hostname": id[:12]},
        "HostConfig": {"NetworkMode": mode},
        "NetworkSettings": {
            "SandboxKey": f"/var/run/docker/netns/{id[:12]}" if running else "",
            "IPAddress": address,
            "Networks": {"bridge": {"IPAddress": address, "GlobalIPv6Address": ""}},
        },
    }


class FakeDocker:
    """Serves `containers` (by id) on a unix socket; answers are chunked, as Go's are."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.containers: dict[str, dict[str, object]] = {}
        self.asked: list[str] = []
        self._events: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def put(self, *containers: dict[str, object]) -> None:
        for each in containers:
            self.containers[str(each["Id"])] = each

    def tell(self) -> None:
        """An event, to whoever listens."""
        line = json.dumps({"Type": "container", "Action": "start"}) + "\n"
        for each in self._events:
            with contextlib.suppress(OSError):
                each.sendall(f"{len(line):x}\r\n{line}\r\n".encode())

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for each in self._events:
            each.close()
        os.unlink(self.path)

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(5)
            try:
                self._answer(sock)
            except OSError:  # it did not wait for the whole answer
                sock.close()

    def _answer(self, sock: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            if not (data := sock.recv(65536)):
                sock.close()
                return
            request += data
            if request.startswith(b"PRI * HTTP/2.0"):  # what Go answers to HTTP/2
                sock.sendall(
                    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request"
                )
                sock.close()
                return
        url = request.split()[1].decode()
        self.asked.append(url)
        if url.startswith("/events"):
            sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            self._events.append(sock)
            return
        status, body = self._page(url)
        data = json.dumps(body).encode()
        head = f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n"
        sock.sendall(head.encode())
        for piece in (data[:10], data[10:], b""):  # Go sends what it has; an empty chunk ends it
            sock.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        sock.close()

    def _page(self, url: str) -> tuple[str, object]:
        if url == "/version":
            return "200 OK", VERSION
        if url == "/containers/json?all=1":
            return "200 OK", [
                {"Id": id, "Names": [each["Name"]], "State": each["State"]["Status"]}  # type: ignore[index]
                for id, each in self.containers.items()
            ]
        name = url.removeprefix("/containers/").removesuffix("/json")
        for id, each in self.containers.items():
            if id.startswith(name) or each["Name"] == f"/{name}":
                return "200 OK", each
        return "404 Not Found", {"message": f"No such container: {name}"}


@contextlib.contextmanager
def fake_docker(path: str) -> Iterator[FakeDocker]:
    made = FakeDocker(path)
    try:
        yield made
    finally:
        made.close()
