"""A CRI runtime that answers from a table, for shapes that containerd here does not have (CRI-O, cri-dockerd, old, hostile)."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from tests.containers import cri
from tests.containers.cri import message


class FakeCri:
    """`answers` by method name: bytes, or a gRPC status; methods not in it are unimplemented."""

    def __init__(self, path: str, *, name: str = "cri-o", version: str = "v1") -> None:
        self.path = path
        self.answers: dict[str, bytes | int] = {
            "Version": message(f1="0.1.0", f2=name, f3="1.28.2", f4=version)
        }
        self.statuses: dict[str, bytes] = {}  # of sandboxes and containers by id
        self.pods: list[bytes] = []
        self.containers: list[bytes] = []
        self._service = f"/runtime.{version}.RuntimeService/"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(64)
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def add(
        self,
        id: str,
        name: str,
        *,
        state: int = 0,
        netns: str = "",
        info: str | None = None,
        created_ns: int = 1,
        labels: dict[str, str] | None = None,
        label_bytes: bytes = b"",
    ) -> None:
        """A sandbox; `info` is what verbose adds, None for nothing."""
        meta = message(f1=name, f2=f"uid-{name}", f3="shop")
        labels = labels or {}
        self.pods.append(message(f1=id, f2=meta, f3=state, f4=created_ns, f5=labels))
        status = message(f1=id, f2=meta, f3=state, f4=created_ns, f7=labels) + label_bytes
        extra = {} if info is None else {"info": info}
        self.statuses[id] = message(f1=status, f2=extra)

    def contain(self, sandbox: str, id: str, *, info: str | None = None, state: int = 1) -> None:
        """A container of a sandbox."""
        meta = message(f1="main")
        self.containers.append(message(f1=id, f2=sandbox, f3=meta, f6=state, f7=1))
        status = message(
            f1=id,
            f2=meta,
            f3=state,
            f4=1,
            f5=2,
            f8=message(f1="nginx:1"),
            f9="nginx@sha256:" + "cd" * 32,
        )
        extra = {} if info is None else {"info": info}
        self.statuses[id] = message(f1=status, f2=extra)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        link = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        link.initiate_connection()
        asked: dict[int, tuple[str, bytearray]] = {}
        waiting: dict[int, bytes] = {}
        with contextlib.suppress(OSError, h2.exceptions.ProtocolError), sock:  # its client is rude
            sock.sendall(link.data_to_send())
            while data := sock.recv(65536):
                for event in link.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        asked[event.stream_id] = (dict(event.headers)[":path"], bytearray())
                    elif isinstance(event, h2.events.DataReceived):
                        asked[event.stream_id][1].extend(event.data)
                        link.acknowledge_received_data(
                            event.flow_controlled_length, event.stream_id
                        )
                    elif isinstance(event, h2.events.StreamEnded):
                        path, body = asked.pop(event.stream_id)
                        answer = self._answer(path, bytes(body[5:]))
                        status = answer if isinstance(answer, int) else 0
                        link.send_headers(
                            event.stream_id,
                            [(":status", "200"), ("content-type", "application/grpc")],
                        )
                        if status:
                            link.send_headers(
                                event.stream_id, [("grpc-status", str(status))], True
                            )
                        else:
                            assert isinstance(answer, bytes)
                            waiting[event.stream_id] = struct.pack(">BI", 0, len(answer)) + answer
                for stream in list(waiting):
                    rest = waiting[stream]
                    while (
                        rest and (room := min(link.local_flow_control_window(stream), 16_384)) > 0
                    ):
                        link.send_data(stream, rest[:room])
                        rest = rest[room:]
                    waiting[stream] = rest
                    if not rest:
                        del waiting[stream]
                        link.send_headers(stream, [("grpc-status", "0")], True)
                sock.sendall(link.data_to_send())

    def _answer(self, path: str, request: bytes) -> bytes | int:
        if not path.startswith(self._service):
            return 12
        method = path.removeprefix(self._service)
        if method in self.answers:
            return self.answers[method]
        asked = cri.one(request, 1)
        if method == "ListPodSandbox":
            return message(f1=self.pods)
        if method == "ListContainers":
            id, sandbox = cri.one(asked, 1), cri.one(asked, 3)
            fits = [
                each
                for each in self.containers
                if cri.one(each, 1).startswith(id) and cri.one(each, 2).startswith(sandbox)
            ]
            return message(f1=fits)
        return next((s for id, s in self.statuses.items() if id.startswith(asked.decode())), 5)

    def close(self) -> None:
        for sock in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join()
        os.unlink(self.path)


@contextlib.contextmanager
def fake_cri(path: str, *, name: str = "cri-o", version: str = "v1") -> Iterator[FakeCri]:
    made = FakeCri(path, name=name, version=version)
    try:
        yield made
    finally:
        made.close()
