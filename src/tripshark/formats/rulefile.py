"""What rule files say: YAML documents in, rules and every problem at once out.

Tripshark's own rules and Falco Talon's rule and action documents, in any mixture, over several files.
Merging follows Talon: a name mentioned again in a later file replaces single values and adds to lists
(within one file it is a mistake). Where Talon's behaviour is a bug the author's meaning is taken and a
warning says so. Every problem carries the line and column it stands at.

A rule without `capture` records with the settings' defaults; `capture: false` asks for no packets.
Talon's `kubernetes:tcpdump` becomes the capture of its rule. Other actions are kept and shown, and not
performed by this version.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import yaml
from pydantic import TypeAdapter, ValidationError

from tripshark.errors import BadInput
from tripshark.formats import places, ruledocuments
from tripshark.formats.places import Entry, Place
from tripshark.formats.ruledocuments import (
    ActionDocument,
    CaptureDocument,
    Document,
    MatchDocument,
    RuleDocument,
    Unfit,
)
from tripshark.model import expression
from tripshark.model.rule import Action, Capture, Match, Rule, RuleSet

TCPDUMP = "kubernetes:tcpdump"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something a person should mend; only an error keeps its rule from being used."""

    file: str
    line: int  # from 1
    column: int
    severity: Literal["error", "warning"]
    message: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f" → {self.hint}" if self.hint else ""
        return f"{self.file}:{self.line}:{self.column}: {self.severity}: {self.message}{hint}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What several files say together. `rules` holds those without an error."""

    rules: RuleSet
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether these rules may replace the ones in force."""
        return not any(problem.severity == "error" for problem in self.problems)


def load(
    files: Sequence[tuple[str, str]], *, check_filter: Callable[[str], object] | None = None
) -> Loaded:
    """Read all files, in order, as (name, text). Never raises for what they hold.

    `check_filter` raises `BadInput` for a filter expression that cannot be compiled, for instance
    `lambda text: bpf.compile(text, 1)`; without it filters are taken as they stand.
    """
    return _Loader(check_filter).load(files)


def render(rules: RuleSet) -> str:
    """The merged rules as one file, which loads to the same rules with the same hashes."""
    parts = []
    for rule in rules:
        text = yaml.safe_dump([rule.document], sort_keys=False, allow_unicode=True, width=100)
        origin = " ".join(rule.file.split())
        parts.append(f"# {origin}:{rule.line}, sha256 {rule.hash}\n{text}")
    return "\n".join(parts)


def schema() -> dict[str, Any]:
    """JSON Schema of a rule file, for editors."""
    return TypeAdapter(list[RuleDocument | ActionDocument]).json_schema()


@dataclass(frozen=True, slots=True)
class _Mention:
    """One document that mentions a rule or an action."""

    entry: Entry
    broken: bool

    @property
    def value(self) -> dict[str, Any]:
        value: dict[str, Any] = self.entry.value
        return value


class _Loader:
    """One load over several files; collects problems as it goes."""

    def __init__(self, check_filter: Callable[[str], object] | None) -> None:
        self._check_filter = check_filter
        self._problems: list[Problem] = []
        self._rules: dict[str, list[_Mention]] = {}
        self._actions: dict[str, list[_Mention]] = {}

    def load(self, files: Sequence[tuple[str, str]]) -> Loaded:
        for file, text in files:
            seen: set[tuple[str, str]] = set()
            try:
                for entry in places.entries(file, text):
                    self._entry(entry, seen)
            except BadInput as problem:
                line, _, column = (problem.where or "1:1").partition(":")
                place = Place(file, int(line), int(column))
                self._report("error", place, problem.message, problem.hint)
        built = [self._build(mentions) for mentions in self._rules.values()]
        order = {file: index for index, (file, _) in enumerate(files)}
        problems = sorted(
            dict.fromkeys(self._problems), key=lambda p: (order[p.file], p.line, p.column)
        )
        rules = tuple(rule for rule in built if rule is not None)
        return Loaded(rules=RuleSet(rules), problems=tuple(problems))

    def _report(
        self, severity: Literal["error", "warning"], place: Place, message: str, hint: str = ""
    ) -> None:
        self._problems.append(
            Problem(
                file=place.file,
                line=place.line,
                column=place.column,
                severity=severity,
                message=" ".join(message.split()),
                hint=" ".join(hint.split()),
            )
        )

    # ------------------------------------------------------------------ one document

    def _entry(self, entry: Entry, seen: set[tuple[str, str]]) -> None:
        value = entry.value if isinstance(entry.value, dict) else {}
        kind = next((kind for kind in ("rule", "action") if kind in value), "")
        name = value.get(kind)
        if not isinstance(name, str):
            keys = ", ".join(map(repr, list(value)[:5]))
            self._report(
                "error",
                entry.at(()),
                f"this is neither a rule nor an action{f': it has {keys}' if keys else ''}",
                "begin it with `- rule:` or `- action:`",
            )
            return
        before = len(self._problems)
        for place, key in entry.doubled:
            self._report("error", place, f"{key!r} is given twice", "keep one of them")
        if (kind, name) in seen:
            self._report(
                "error",
                entry.at((kind,)),
                f"the {kind} {name[:80]!r} is in this file already",
                "merge the two, or put one into a later file",
            )
        seen.add((kind, name))
        self._validate(RuleDocument if kind == "rule" else ActionDocument, entry)
        broken = any(problem.severity == "error" for problem in self._problems[before:])
        known = self._rules if kind == "rule" else self._actions
        known.setdefault(name, []).append(_Mention(entry, broken))

    def _validate(self, model: type[Document], entry: Entry) -> None:
        try:
            document = model.model_validate(
                entry.value, context={"check_filter": self._check_filter}
            )
        except ValidationError as problems:
            for each in problems.errors(include_url=False):
                path = each["loc"]
                if each["type"] == "extra_forbidden":
                    message, hint = ruledocuments.unknown_key(model, path)
                else:
                    message, hint = _said(each["msg"], path), ""
                    cause = each.get("ctx", {}).get("error")
                    if isinstance(cause, Unfit):
                        hint = cause.hint
                self._report("error", entry.at(path), message, hint)
        else:
            if isinstance(document, RuleDocument):
                self._warn(document, entry)

    def _warn(self, document: RuleDocument, entry: Entry) -> None:
        """What can be used, and is perhaps not what its author expects."""
        if document.match == MatchDocument():
            self._report("warning", entry.at(("match",)), "no `match`: every alert matches")
        for index, text in enumerate(document.match.output_fields):
            for warning in ruledocuments.field_tests(text)[1]:
                self._report("warning", entry.at(("match", "output_fields", index)), warning)

    # ------------------------------------------------------------------ all documents of one rule

    def _build(self, mentions: Sequence[_Mention]) -> Rule | None:
        """One rule of every document that carries its name; None when any of them has an error."""
        if any(mention.broken for mention in mentions):
            for mention in mentions:
                self._name_actions(mention)
            return None
        place = mentions[0].entry.at(("rule",))
        document: dict[str, Any] = {}
        for mention in mentions:
            document = self._merged(document, mention)
        actions = self._actions_of(mentions, document)
        if actions is None:
            return None
        document.pop("actions", None)
        if actions:
            document["actions"] = actions
        return replace(_rule(document), file=place.file, line=place.line)

    def _name_actions(self, mention: _Mention) -> None:
        """Of a rule that cannot be built: still say which of its actions nobody knows."""
        actions = mention.value.get("actions")
        for index, inline in enumerate(actions if isinstance(actions, list) else []):
            if isinstance(inline, dict) and isinstance(inline.get("action"), str):
                known = inline["action"] in self._actions or "actionner" in inline
                if not known:
                    self._unknown_action(inline["action"], mention.entry.at(("actions", index)))

    def _unknown_action(self, name: str, place: Place) -> None:
        close = difflib.get_close_matches(name, self._actions, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "add `actionner:`, or an `- action:`"
        self._report("error", place, f"there is no action {name[:80]!r}", hint)

    def _merged(self, base: dict[str, Any], mention: _Mention) -> dict[str, Any]:
        merged = {**base}
        for key, value in mention.value.items():
            if key == "match":
                merged["match"] = self._merged_match(base.get("match", {}), mention)
            elif key == "notifiers":
                merged[key] = _both(base.get(key, []), value)
            elif key == "capture" and isinstance(value, dict):
                earlier = base[key] if isinstance(base.get(key), dict) else {}
                limits = {**earlier.get("max", {}), **value.get("max", {})}
                merged[key] = {**earlier, **value, **({"max": limits} if limits else {})}
            else:
                merged[key] = value
        return merged

    def _merged_match(self, base: Mapping[str, Any], mention: _Mention) -> dict[str, Any]:
        given: dict[str, Any] = mention.value["match"]
        for key in ("priority", "source"):
            if key in base and key not in given:
                self._report(
                    "warning",
                    mention.entry.at(("match",)),
                    f"{key} stays {base[key]!r}; Falco Talon would drop it here",
                )
        lists = {
            key: _both(base.get(key, []), given.get(key, []))
            for key in ("rules", "tags", "output_fields")
            if key in base or key in given
        }
        return {**base, **given, **lists}

    def _actions_of(
        self, mentions: Sequence[_Mention], document: dict[str, Any]
    ) -> list[dict[str, Any]] | None:
        """Every action complete in itself. A tcpdump becomes the rule's capture instead."""
        resolved: dict[str, dict[str, Any]] = {}
        sound = True
        for mention in mentions:
            for index, inline in enumerate(mention.value.get("actions", [])):
                place = mention.entry.at(("actions", index))
                action = self._resolved(inline, place)
                if action is None:
                    sound = False
                elif action["action"] in resolved:
                    self._report(
                        "warning",
                        place,
                        f"the action {action['action']!r} is in this rule already and counts once; "
                        "Falco Talon would run it twice",
                    )
                elif action["actionner"] == TCPDUMP:
                    sound = self._as_capture(action, document, place) and sound
                else:
                    resolved[action["action"]] = action
        return list(resolved.values()) if sound else None

    def _resolved(self, inline: Mapping[str, Any], place: Place) -> dict[str, Any] | None:
        """An action as its rule means it: the blocks of its name, then what the rule says itself."""
        name = inline["action"]
        mentions = self._actions.get(name, [])
        if any(mention.broken for mention in mentions):
            return None  # said already, where it stands
        action: dict[str, Any] = {}
        for block in (*(mention.value for mention in mentions), inline):
            action = _merged_action(action, block)
        if "actionner" not in action:
            close = difflib.get_close_matches(name, self._actions, n=1)
            hint = (
                f"did you mean {close[0]!r}?" if close else "add `actionner:`, or an `- action:`"
            )
            self._report("error", place, f"there is no action {name!r}", hint)
            return None
        if action["actionner"] != TCPDUMP:
            self._report(
                "warning",
                place,
                f"the action {name!r} ({action['actionner']}) is noted and not performed",
                "this version records; it does not contain",
            )
        if action.get("output", {}).get("target"):
            self._report(
                "warning",
                place,
                f"output {action['output']['target']!r}: evidence goes to the evidence folder alone",
            )
        return action

    def _as_capture(
        self, action: Mapping[str, Any], document: dict[str, Any], place: Place
    ) -> bool:
        """Talon's tcpdump: the whole pod, for `duration` seconds after the alert."""
        if "capture" in document:
            self._report(
                "warning", place, f"the action {action['action']!r} yields to the rule's `capture`"
            )
            return True
        parameters = action.get("parameters", {})
        capture = {
            "scope": "pod",
            "after": str(parameters.get("duration", 5)),
            "snaplen": str(parameters.get("snaplen", "full")),
        }
        try:
            CaptureDocument.model_validate(capture)
        except ValidationError as problems:
            for each in problems.errors():
                self._report("error", place, _said(each["msg"], each["loc"]))
            return False
        document["capture"] = capture
        self._report(
            "warning",
            place,
            f"the action {action['action']!r} is read as a capture of the pod: "
            f"{capture['after']} s after the alert, and what came before it",
        )
        return True


def _said(message: str, path: tuple[str | int, ...]) -> str:
    return f"{'.'.join(map(str, path))}: {message.removeprefix('Value error, ')}"


def _both(first: str | list[Any], second: str | list[Any]) -> list[Any]:
    lists = [[each] if isinstance(each, str) else each for each in (first, second)]
    return [*lists[0], *(item for item in lists[1] if item not in lists[0])]


def _merged_action(base: dict[str, Any], block: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**base, **block}
    if "additional_contexts" in base:
        merged["additional_contexts"] = _both(
            base["additional_contexts"], block.get("additional_contexts", [])
        )
    if "parameters" in base:
        merged["parameters"] = _merged_parameters(base["parameters"], block.get("parameters", {}))
    if "output" in base:
        merged["output"] = {**base["output"], **block.get("output", {})}
    return merged


def _merged_parameters(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Maps are merged, lists added to, single values replaced."""
    merged = {**base, **own}
    for key in base.keys() & own.keys():
        if isinstance(base[key], dict) and isinstance(own[key], dict):
            merged[key] = {**base[key], **own[key]}
        elif isinstance(base[key], list) and isinstance(own[key], list):
            merged[key] = _both(base[key], own[key])
    return merged


# ---------------------------------------------------------------------------------- to the model


def _rule(document: dict[str, Any]) -> Rule:
    checked = RuleDocument.model_validate(document)
    canonical = json.dumps(document, sort_keys=True)
    match, capture = checked.match, checked.capture
    return Rule(
        name=checked.rule,
        description=checked.description,
        match=Match(
            rules=tuple(match.rules),
            priority=match.priority,
            tags=tuple(
                tuple(tag.strip() for tag in entry.split(",") if tag.strip())
                for entry in match.tags
            ),
            source=match.source,
            output_fields=tuple(
                ruledocuments.field_tests(text)[0] for text in match.output_fields
            ),
            where=None if match.where is None else expression.compile(match.where),
        ),
        capture=None if capture is None else _capture(capture),
        actions=tuple(
            Action(
                name=action.action,
                actionner=action.actionner or "",
                parameters=action.parameters,
                proceed=action.proceed,
                ignore_errors=action.ignore_errors,
            )
            for action in checked.actions
        ),
        notifiers=tuple(dict.fromkeys(checked.notifiers)),
        proceed=checked.proceed,
        dry_run=checked.dry_run,
        hash=hashlib.sha256(canonical.encode()).hexdigest(),
        document=document,
    )


def _capture(document: CaptureDocument) -> Capture:
    return Capture(
        scope=document.scope,
        before_ns=document.before,
        after_ns=document.after,
        idle_ns=document.idle,
        max_bytes=document.max.bytes,
        max_packets=document.max.packets,
        extend_ns=document.max.extend,
        snaplen=document.snaplen,
        filter=document.filter,
    )
