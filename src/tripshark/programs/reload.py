"""Rules in force, read again whenever their files change; a broken change keeps the last good ones.

Files are compared by what they resolve to (path, inode, size, time of change) once a second: that sees an editor's
rename, an in-place write and a ConfigMap's symlink swap alike, which file events do not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from tripshark.errors import BadInput
from tripshark.formats.rulefile import Loaded, Problem
from tripshark.model.rule import RuleSet
from tripshark.programs.parts import load_rules, rule_files
from tripshark.settings import Settings

log = structlog.get_logger("tripshark.rules")

EVERY = 1.0

Fingerprint = tuple[tuple[str, int, int, int, int], ...]


@dataclass(slots=True)
class RulesInForce:
    """The last good rules, and what is wrong with the files as they are now."""

    settings: Settings
    use: Callable[[RuleSet], None]  # puts a good set into force
    rules: RuleSet = field(default_factory=RuleSet)
    problems: tuple[Problem, ...] = ()
    reloads: int = 0
    failures: int = 0
    _seen: Fingerprint = ()

    def start(self) -> None:
        """The first load must succeed: without rules nothing would be captured. Raises `BadInput`."""
        self._seen = self._fingerprint()
        loaded = load_rules(self.settings)
        if not loaded.ok:
            raise BadInput(
                "\n".join(str(problem) for problem in loaded.problems),
                where="rules",
                hint="`tripshark rules check` shows the same",
            )
        self._take(loaded)

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            try:
                now = await asyncio.to_thread(self._fingerprint)
            except (BadInput, OSError) as problem:
                self._seen = ()  # when they are back, they are read again, even if they are the same
                self._fail(str(problem), ())
                continue
            if now != self._seen:
                self._seen = now
                await self._reload()

    async def _reload(self) -> None:
        try:
            loaded = await asyncio.to_thread(load_rules, self.settings)
        except (BadInput, OSError) as problem:
            self._fail(str(problem), ())
            return
        if loaded.ok:
            self._take(loaded)
            self.reloads += 1
            log.info("rules reloaded", rules=len(loaded.rules))
        else:
            self._fail("the rule files have errors", loaded.problems)

    @property
    def trouble(self) -> str:
        """Why the files as they are now are not in force; empty when they are."""
        if not self._failed_with:
            return ""
        errors = [each for each in self.problems if each.severity == "error"]
        if not errors:
            return f"{self._failed_with}; the last good rules stay in force"
        return f"{len(errors)} errors in the rule files, the first: {errors[0]}; the last good rules stay in force"

    def _fail(self, message: str, problems: tuple[Problem, ...]) -> None:
        known = (message, problems) == (self._failed_with, self.problems)
        self._failed_with, self.problems = message, problems
        if not known:
            self.failures += 1
            log.error("rules not reloaded", problem=message, problems=[str(p) for p in problems])

    _failed_with: str = ""

    def _take(self, loaded: Loaded) -> None:
        self.rules, self.problems, self._failed_with = loaded.rules, loaded.problems, ""
        self.use(loaded.rules)
        for problem in loaded.problems:
            log.warning("rules", problem=str(problem))

    def _fingerprint(self) -> Fingerprint:
        return tuple(
            (str(path.resolve()), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            for path in rule_files(self.settings)
            for stat in (path.stat(),)
        )
