"""A real `tripshark hub` for tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.e2e.machine import wait_for
from tests.processes import killed_with_us


class HubProcess:
    """One process; `start` again after `stop` or `kill` goes on with the same data folder."""

    def __init__(self, folder: Path, **config: object) -> None:
        folder.mkdir(exist_ok=True)
        self.log = folder / "log"
        self._config = folder / "hub.yaml"
        self._config.write_text(
            json.dumps({"listen": "127.0.0.1:0", "data": str(folder / "data"), **config})
        )
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self) -> HubProcess:
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tripshark", "hub", "--config", str(self._config), "--json"],
                stdout=subprocess.PIPE, stderr=log, text=True, preexec_fn=killed_with_us,
            )  # fmt: skip
        assert self._process.stdout is not None
        said: dict[str, object] = {}
        while said.get("program") != "hub":  # its analyst is ready before
            said = json.loads(self._process.stdout.readline() or "{}")
            assert said.get("event") == "ready", (said, self.log.read_text()[-2000:])
        self.url = str(said["url"])
        return self

    def stop(self) -> int:
        """Asked to end; its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> int:
        if self._process is None:
            return 0
        os.kill(self._process.pid, number)
        code = self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None
        return code

    def get(self, path: str, **headers: str) -> bytes:
        request = urllib.request.Request(self.url + path, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bytes(answer.read())

    def incidents(self) -> list[dict[str, object]]:
        return list(json.loads(self.get("/v1/incidents?limit=500"))["incidents"])

    def wait_incidents(self, count: int, seconds: float = 60) -> list[dict[str, object]]:
        def enough() -> list[dict[str, object]]:
            found = self.incidents()
            return found if len(found) >= count else []

        return wait_for(enough, f"{count} incidents at the hub", seconds)
