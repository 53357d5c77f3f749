"""Keeps the rings while the recorder is replaced: starts it, starts it again, and hands everything back to it."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

from tripshark.recorder import capabilities
from tripshark.recorder.keeper import Json, Shelf, receive

log = logging.getLogger(__name__)

_PIN_S = 30.0  # without a worker for so long, rings are given up: they keep dead namespaces alive
_STOP_S = 5.0  # a worker that was told to end and does not is killed
_STEADY_S = 10.0  # a worker that lived so long did not fail at its start
_PAUSES_S = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)


class Holder:
    """Owns no ring's memory and reads none; only descriptors, so that they outlive the worker."""

    def __init__(
        self,
        command: Callable[[int, int], list[str]],
        listener: socket.socket,
        say: Callable[[Json], None],
    ) -> None:
        self._command = command  # the worker's arguments, given its two descriptors
        self._listener = listener
        self._say = say
        self._shelf = Shelf()
        self._worker = self._pidfd = -1
        self._sock: socket.socket | None = None
        self._ready = self._ever_ready = False
        self._stopping = self._renewing = False
        self._failures = 0
        self._since = time.monotonic()  # when there was last a worker that is ready
        self._start_at = 0.0
        self._started = 0.0
        self._kill_at = 0.0

    def run(self) -> int:
        """Until SIGTERM or SIGINT; the exit code. SIGHUP replaces the worker, by new code if there is some."""
        wake, nudge = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(nudge, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        while True:
            if self._worker < 0:
                if self._stopping:
                    return 0
                if time.monotonic() >= self._start_at:
                    self._start()
            poll = select.poll()
            poll.register(wake, select.POLLIN)
            if self._worker > 0:
                poll.register(self._pidfd, select.POLLIN)
            if self._sock is not None:
                poll.register(self._sock, select.POLLIN)
            ready = {fd for fd, _ in poll.poll(self._wait_ms())}
            if wake in ready:
                os.read(wake, 4096)
            if self._sock is not None and self._sock.fileno() in ready:
                self._listen(self._sock)
            if self._worker > 0 and self._pidfd in ready and (code := self._reap()) is not None:
                return code
            if self._worker > 0 and 0 < self._kill_at < time.monotonic():
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                self._kill_at = 0.0
            if not self._ready and time.monotonic() - self._since > _PIN_S:
                self._since = time.monotonic()
                if lost := self._shelf.drop_all("ring:"):
                    log.error("no recorder for %g s: gave up %d rings", _PIN_S, lost)

    def _wait_ms(self) -> int | None:
        if self._worker < 0:
            return max(0, int((self._start_at - time.monotonic()) * 1000) + 1)
        return None if self._ready and not self._kill_at else 1000

    def _on_signal(self, number: int, _frame: object) -> None:
        if number == signal.SIGHUP:
            self._renewing = True
        else:
            self._stopping = True
        if self._worker > 0:
            self._end_worker()

    def _end_worker(self) -> None:
        self._kill_at = time.monotonic() + _STOP_S
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            self._become_worker(theirs)
        theirs.close()
        self._worker, self._pidfd, self._sock = pid, os.pidfd_open(pid), ours
        self._ready = False
        self._started, self._kill_at = time.monotonic(), 0.0
        if self._stopping:
            self._end_worker()
        ours.settimeout(5.0)
        with contextlib.suppress(OSError):  # it died already: its exit is what counts
            self._shelf.hand_over(ours)

    def _become_worker(self, theirs: socket.socket) -> None:
        """In the forked child: execute the recorder with its two descriptors."""
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            capabilities.pass_on()
            pair, listener = theirs.fileno(), self._listener.fileno()
            os.set_inheritable(pair, True)
            os.set_inheritable(listener, True)
            os.execv(sys.executable, self._command(pair, listener))  # noqa: S606 — our own interpreter, no shell wanted
        finally:
            os._exit(127)

    def _listen(self, sock: socket.socket) -> None:
        """Take in what the worker says, but for a stop between packets so that its exit is noticed too."""
        for _ in range(256):
            try:
                got = receive(sock)
            except OSError:
                got = None
            if got is None:
                sock.close()
                self._sock = None
                return
            message, fd = got
            match message.get("op"):
                case "put":
                    self._shelf.put(message["id"], message["meta"], fd)
                case "tally":
                    self._shelf.tally(message["facts"])
                case "drop":
                    self._shelf.drop(message["id"])
                case "ready":
                    self._on_ready(message)
                case "failed":
                    self._say({"ready": False, "error": message.get("error")})
                case unknown:
                    log.error("the recorder says %r, which means nothing", unknown)
            if not select.select([sock], [], [], 0)[0]:
                return

    def _on_ready(self, message: Json) -> None:
        self._ready, self._renewing = True, False
        facts = {each: value for each, value in message.items() if each != "op"}
        if not self._ever_ready:
            self._say({"ready": True, "holder": os.getpid(), "worker": self._worker, **facts})
        else:
            log.warning("the recorder is back as process %d", self._worker)
        self._ever_ready = True

    def _reap(self) -> int | None:
        """The worker ended: what now? An exit code ends the holder too."""
        if self._sock is not None:
            self._listen(self._sock)
        _, status = os.waitpid(self._worker, 0)
        code = os.waitstatus_to_exitcode(status)
        os.close(self._pidfd)
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        self._worker = -1
        if self._ready:
            self._since = time.monotonic()
        self._ready = False
        if self._stopping:
            return 0 if code in (0, -signal.SIGTERM) else 1
        if not self._ever_ready:
            return code if code > 0 else 1
        if not self._renewing:
            log.error("the recorder ended with %d; starting it again", code)
        if time.monotonic() - self._started > _STEADY_S:
            self._failures = 0
        pause = 0.0 if self._renewing else _PAUSES_S[min(self._failures, len(_PAUSES_S) - 1)]
        self._failures += not self._renewing
        self._start_at = time.monotonic() + pause
        return None
