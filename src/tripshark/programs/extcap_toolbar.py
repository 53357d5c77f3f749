"""What the toolbar in Wireshark's window can do while a capture runs: filter, mark, pause, and say how it goes."""

from __future__ import annotations

import getpass
import time
from pathlib import Path
from typing import Final

from tripshark.errors import TripsharkError
from tripshark.wireshark.asking import Service
from tripshark.wireshark.control import Command, Told, packed, told
from tripshark.wireshark.relay import Relay
from tripshark.wireshark.sentences import COMMENT, FILTER, LOG, MARK, PAUSE

ANSWER_SECONDS: Final = 10.0


class Toolbar:
    """Takes what is clicked, in a thread of its own."""

    def __init__(self, out: str, relay: Relay, service: Service, view: str) -> None:
        self._out = Path(out).open("wb", buffering=0)  # noqa: SIM115  # as long as the capture
        self._relay = relay
        self._service = service
        self._view = view
        self._comment = ""
        self._log("Tripshark: history first, then live; alerts stand where they happened")
        if not view:
            self._tell(FILTER, Command.DISABLE)  # evidence is sealed

    def run(self, pipe: str) -> None:
        """Until Wireshark closes the pipe."""
        with Path(pipe).open("rb") as clicks:
            for each in told(clicks):
                self._take(each)

    def _take(self, it: Told) -> None:
        if it.command != Command.SET:
            return
        match it.control:
            case n if n == FILTER:
                self._filter(it.text)
            case n if n == COMMENT:
                self._comment = it.text
            case n if n == MARK:
                self._relay.mark(time.time_ns(), self._comment, getpass.getuser())
                self._log(f"marked: {self._comment or '(no comment)'}")
            case n if n == PAUSE:
                paused = it.text[:1] not in ("", "\0")
                count = self._relay.pause(time.time_ns(), paused=paused)
                self._log("paused" if paused else f"goes on; {count} packets were left out")
            case _:
                return

    def _filter(self, text: str) -> None:
        try:
            self._service.post(f"/v1/live/{self._view}", {"filter": text}, seconds=ANSWER_SECONDS)
        except TripsharkError as problem:
            self._log(f"the filter stays as it was: {problem}")
            self._tell(FILTER, Command.WARNING, problem.message)
        else:
            self._log(f"filter from now on: {text or '(everything)'}")
            self._tell(FILTER, Command.STATUS, f"filter: {text or 'none'}")

    def _log(self, words: str) -> None:
        self._tell(LOG, Command.ADD, f"{time.strftime('%H:%M:%S')} {words}\n")

    def _tell(self, control: int, command: Command, text: str = "") -> None:
        self._out.write(packed(control, command, text))
