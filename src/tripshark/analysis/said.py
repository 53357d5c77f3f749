"""What applications said in clear text: TLS greetings, HTTP, SSH, ICMP, logins, and tshark's own remarks."""

from __future__ import annotations

import re
from collections import Counter, defaultdict, deque
from collections.abc import Hashable
from typing import TypeVar

from tripshark.analysis import filters
from tripshark.analysis.table import Row, Table, whole
from tripshark.formats.tshark import Frame, Hello, Login, Request, Response
from tripshark.formats.tshark_logins import FORM
from tripshark.model.text import printable

_MAX_OPEN = (
    20_000  # greetings and requests that wait for their answer, users that wait for their password
)
_MAX_SEEN = 5_000
_CITED = 20
LARGE_PING = 150
"""Bytes on the wire of an echo request: `ping` sends 98, Windows 74, and both as many every time."""
_ECHO_REQUEST = {"icmp": 8, "icmpv6": 128}
_TYPED = 64  # characters of a telnet line that are counted
_ASKS_USER = re.compile(r"(?:login|username|user name):\s*$", re.IGNORECASE)
_ASKS_SECRET = re.compile(r"pass(?:word|code|phrase):\s*$", re.IGNORECASE)
_AGAIN = re.compile(r"(Duplicate ACK) \(#\d+\)", re.ASCII)
_ENDS = re.compile(r"\\r|\\n|[\r\n]")

_Side = tuple[str, int]
_Value = TypeVar("_Value")
_Key = TypeVar("_Key", bound=Hashable)


class Seen:
    """Packets of one sort: how many, the first of them, when, and of which sizes."""

    __slots__ = ("_last", "count", "first_ns", "frames", "last_ns", "sizes")

    def __init__(self) -> None:
        self._last = 0  # frame
        self.count = 0
        self.frames: list[int] = []
        self.first_ns = self.last_ns = 0
        self.sizes: set[int] = set()

    def add(self, frame: Frame) -> None:
        """One more; the same packet counts once, however often it shows the same."""
        if frame.number == self._last:
            return
        self._last = frame.number
        self.count += 1
        self.first_ns = self.first_ns or frame.time_ns
        self.last_ns = max(self.last_ns, frame.time_ns)
        self.sizes.add(frame.length)
        if len(self.frames) < _CITED:
            self.frames.append(frame.number)


class Said:
    """Takes packets in file order."""

    def __init__(self) -> None:
        self.tls, self.http, self.ssh = Table(), Table(), Table()
        self.icmp, self.credentials, self.experts = Table(), Table(), Table()
        self.nameless: dict[tuple[str, str], Seen] = {}  # client, server → hellos without a name
        self.chosen: dict[tuple[str, str], Seen] = {}  # server, version → its hellos
        self.pings: dict[
            tuple[str, str, str], Seen
        ] = {}  # protocol, client, server → large echoes
        self.errors: dict[tuple[str, str], Seen] = {}  # group, summary as it came
        self._hellos: dict[Hashable, tuple[Hashable, Row]] = {}
        self._requests: dict[Hashable, tuple[Hashable, Row]] = {}
        self._webs: dict[Hashable, _Web] = {}
        self._users: dict[Hashable, str] = {}
        self._prompts: dict[Hashable, _Prompt] = {}
        self._statuses: dict[Hashable, Counter[int]] = defaultdict(
            Counter
        )  # of HTTP/1 requests, as told so far
        self._forms: dict[Hashable, None] = {}  # frames whose form was read
        self.bodies = False  # an HTTP/1 request said that content follows
        self._heard: Counter[Hashable] = Counter()  # HTTP/1 requests of the first pass …
        self._whole: Counter[Hashable] = Counter()  # … and of the pass that puts bodies together
        self._ends: dict[Hashable, Hashable] = {}  # where those known already end
        self._waits: dict[Hashable, deque[int]] | None = None

    @property
    def full(self) -> bool:
        """Whether something did not fit."""
        tables = (self.tls, self.http, self.ssh, self.icmp, self.credentials, self.experts)
        return any(each.full for each in tables)

    def add(self, frame: Frame) -> None:
        """One packet with an IP header."""
        if frame.hello is not None:
            for name in frame.hello.names or ("",):
                self._greet(frame, name, frame.hello)
        if frame.chosen is not None:
            self._chose(frame)
        requests = [each for each in frame.requests if self._is_request(frame, each)]
        for request in requests:
            self._request(frame, request)
        for response in frame.responses:
            self._respond(frame, response)
        if frame.ssh:
            banner = printable(frame.ssh)
            where = filters.place(frame, "ssh.protocol", frame.ssh)
            self.ssh.row((banner, frame.src), {"banner": banner, "address": frame.src, **where})
        if frame.icmp_type >= 0:
            self._icmp(frame)
        for login in frame.logins:
            if requests or not frame.requests:
                self._login(frame, login)
                if login.proto == FORM:
                    _keep(self._forms, frame.number, None)
        if frame.typed:
            self._type(frame)
        for expert in frame.experts:
            said = expert.summary.strip()
            again = _AGAIN.fullmatch(said)  # they are numbered, which would make a row of each
            summary = again[1] if again else printable(said)
            new: Row = {
                "severity": expert.severity,
                "group": expert.group,
                "summary": summary,
                "proto": printable(frame.protocol, 40),
                "count": 0,
                **filters.place(frame),
            }
            if again:
                new["filter"] = "tcp.analysis.duplicate_ack"
            elif shown := filters.sentence("_ws.expert.message", expert.summary):
                new["filter"] = shown
            self.experts.count((expert.severity, expert.group, summary), new)
            if expert.severity == "error":
                _see(self.errors, (expert.group, expert.summary), frame)

    # ── TLS ──────────────────────────────────────────────────────────────────────────────────────

    def _greet(self, frame: Frame, name: str, hello: Hello) -> None:
        new: Row = {
            "name": printable(name),
            "client": frame.src,
            "server": frame.dst,
            "port": frame.dport,
            "proto": printable(frame.transport),
            "alpn": [printable(each, 40) for each in hello.alpn[:8]],
            "version": "",
            "cipher": "",
            "ja3": hello.ja3,
            "ja4": hello.ja4,
            "count": 0,
            **filters.place(frame, "tls.handshake.extensions_server_name", name),
        }
        if not name and not frame.nested:
            _see(self.nameless, (frame.src, frame.dst), frame)
        key = (name, frame.src, frame.dst, frame.dport, frame.transport, hello.ja3, hello.ja4)
        if self.tls.count(key, new) is not None:
            where = filters.place(frame, "tls.handshake.extensions_server_name", name)
            _keep(self._hellos, _stream(frame), (key, where))

    def _chose(self, frame: Frame) -> None:
        if frame.chosen is not None and not frame.nested:
            _see(self.chosen, (frame.src, frame.chosen.version), frame)
        greeting = self._hellos.pop(_stream(frame, back=True), None)
        if greeting is None or frame.chosen is None:
            return
        (key, where), chosen = greeting, frame.chosen
        changes: Row = {"version": chosen.version, "cipher": chosen.cipher}
        self.tls.tell_apart(key, (key, chosen.version, chosen.cipher), where, changes)

    # ── HTTP ─────────────────────────────────────────────────────────────────────────────────────

    def _is_request(self, frame: Frame, request: Request) -> bool:
        """Whether it is one, and no part of somebody's body that reads like one.

        tshark reads requests without waiting for their bodies, so it also reads what a body says. A server sends
        no requests, and a client that still sends a body sends none before the answer.
        """
        if request.version != 1:
            return True
        if not request.method:
            return False
        stream = (frame.transport, frame.stream)
        web = self._webs.get(stream)
        if web is None:
            web = _Web((frame.src, frame.sport))
            _keep(self._webs, stream, web)
        if web.client != (frame.src, frame.sport) or web.sending:
            return False
        web.sending = request.body
        web.had_body = web.had_body or request.body
        return True

    def _request(self, frame: Frame, request: Request) -> None:
        # With a body still to come Wireshark shows the request where the body ends, and what comes after it there
        # too if some of it is missing: no filter by content then.
        web = self._webs.get((frame.transport, frame.stream))
        key = _request_key(frame, request)
        by_host = web is None or not web.had_body
        if not self._count_request(frame, request, key, by_host=by_host):
            return
        if request.version == 1:
            self._heard[key] += 1
            self.bodies = self.bodies or request.body

    def _count_request(
        self, frame: Frame, request: Request, key: Hashable, *, by_host: bool
    ) -> bool:
        host = _host(request)  # never the user and password before an @
        field = "http2.headers.authority" if request.version == 2 else "http.host"
        where = filters.place(frame, field if by_host and host == request.host else "", host)
        new: Row = {
            "host": printable(host),
            "method": printable(request.method, 40),
            "uri": printable(without_secrets(request.uri)),
            "status": 0,
            "user_agent": printable(request.user_agent),
            "client": frame.src,
            "server": frame.dst,
            "port": frame.dport,
            "count": 0,
            **where,
        }
        if self.http.count(key, new) is None:
            return False
        if request.version == 1:
            _keep(self._requests, frame.number, (key, where))
        elif request.id:
            _keep(self._requests, (_stream(frame), request.id), (key, where))
        return True

    def _respond(self, frame: Frame, response: Response) -> None:
        web = self._webs.get((frame.transport, frame.stream))
        if web is not None and web.client != (frame.src, frame.sport) and response.status >= 200:
            web.sending = False
        asked: Hashable = response.request or (_stream(frame, back=True), response.id)
        if (key := self._answered(asked, response.status)) is not None:
            self._statuses[key][response.status] += 1

    def _answered(self, asked: Hashable, status: int) -> Hashable | None:
        """Tell the request that waited under `asked` apart; its key, None where none waited."""
        known = self._requests.pop(asked, None)
        if known is None:
            return None
        key, where = known
        self.http.tell_apart(key, (key, status), where, {"status": status})
        return key

    def again(self, frame: Frame) -> None:
        """HTTP/1 once more after everything else, each message where it ends: what bodies kept from us.

        A head that this pass lacks stays: not all of its body was recorded.
        """
        waits, missed = self._waiting(), False
        web = self._webs.get((frame.transport, frame.stream))
        asks = web is None or web.client == (frame.src, frame.sport)
        for request in frame.requests if asks else ():
            key = _request_key(frame, request)
            self._whole[key] += 1
            if self._whole[key] > self._heard[key]:
                missed = True
                self._count_request(frame, request, key, by_host=True)
            else:
                _keep(self._ends, frame.number, key)
        for login in frame.logins:
            form = login.proto == FORM and asks and frame.number not in self._forms
            if missed or form:
                self._login(frame, login)
        for response in frame.responses:
            asked = response.request
            if (key := self._ends.pop(asked, None)) is not None:
                known = self._statuses[key]
                if known[response.status] > 0:  # told already
                    known[response.status] -= 1
                    continue
                asked = waits[key].popleft() if waits.get(key) else 0
            self._answered(asked, response.status)

    def _waiting(self) -> dict[Hashable, deque[int]]:
        """Frames of the first pass's HTTP/1 requests that lack their answer, by key."""
        if self._waits is None:
            self._waits = defaultdict(deque)
            for at, (key, _) in self._requests.items():
                if isinstance(at, int):
                    self._waits[key].append(at)
        return self._waits

    # ── ICMP ─────────────────────────────────────────────────────────────────────────────────────

    def _icmp(self, frame: Frame) -> None:
        kind = frame.transport
        if kind not in {"icmp", "icmpv6"}:
            return
        shown = (
            f"{kind}.type == {frame.icmp_type} && {kind}.code == {frame.icmp_code} && "
            f"{filters.source(frame.src)} && {filters.destination(frame.dst)}"
        )
        new: Row = {
            "type": frame.icmp_type,
            "code": frame.icmp_code,
            "client": frame.src,
            "server": frame.dst,
            "count": 0,
            "bytes": 0,
            "first_ns": frame.time_ns,
            "frame": frame.number,
            "filter": shown,
        }
        large = frame.length > LARGE_PING and frame.icmp_type == _ECHO_REQUEST[kind]
        if large and not frame.nested:
            _see(self.pings, (kind, frame.src, frame.dst), frame)
        key = (kind, frame.icmp_type, frame.icmp_code, frame.src, frame.dst)
        if (row := self.icmp.count(key, new)) is not None:
            row["bytes"] = whole(row, "bytes") + frame.length

    # ── logins ───────────────────────────────────────────────────────────────────────────────────

    def _login(self, frame: Frame, login: Login) -> None:
        place = (login.proto, _stream(frame))
        if login.secret is None:
            _keep(self._users, place, login.user or "")
            return
        user = self._users.get(place, "") if login.user is None else login.user
        self._credential(frame, login.proto, user, login.secret)

    def _credential(self, frame: Frame, proto: str, user: str, secret: int) -> None:
        safe = printable(user, 100)
        new: Row = {
            "proto": proto,
            "user": safe,
            "secret": f"{secret} character{'' if secret == 1 else 's'}",
            "client": frame.src,
            "server": frame.dst,
            "port": frame.dport,
            "count": 0,
            **filters.place(frame),
        }
        self.credentials.count((proto, safe, secret, frame.src, frame.dst, frame.dport), new)

    def _type(self, frame: Frame) -> None:
        """Telnet: what is typed after a prompt for a name or a password, character by character."""
        to_client = self._prompts.get(_stream(frame, back=True))
        if to_client is not None:
            to_client.hear(frame.typed)
            return
        prompt = self._prompts.get(_stream(frame))
        if prompt is None:
            if _ASKS_USER.search(frame.typed) or _ASKS_SECRET.search(frame.typed):
                new = _Prompt()
                new.hear(frame.typed)
                _keep(self._prompts, _stream(frame, back=True), new)  # by its client's side
            return
        if prompt.type(frame.typed):
            self._credential(frame, "Telnet", prompt.user, prompt.secret)


class _Web:
    """One HTTP/1 connection: who asks, and whether a body is on its way."""

    __slots__ = ("client", "had_body", "sending")

    def __init__(self, client: _Side) -> None:
        self.client = client
        self.sending = self.had_body = False


class _Prompt:
    """One telnet login: what the server asked last, and what the client has typed since."""

    __slots__ = ("_asked", "_line", "_said", "secret", "user")

    def __init__(self) -> None:
        self._said = self._asked = self._line = ""
        self.user = ""
        self.secret = 0

    def hear(self, text: str) -> None:
        self._said = (self._said + text)[-_TYPED:]
        if _ASKS_SECRET.search(self._said):
            self._asked, self._line, self._said = "secret", "", ""
        elif _ASKS_USER.search(self._said):
            self._asked, self._line, self._said = "user", "", ""

    def type(self, text: str) -> bool:
        """Whether this ends a password."""
        if not self._asked:
            return False
        typed, *more = _ENDS.split(text, maxsplit=1)
        self._line = (self._line + typed)[:_TYPED]
        if not more:
            return False
        asked, self._asked = self._asked, ""
        if asked == "user":
            self.user = self._line
        else:
            self.secret = len(self._line)
        return asked == "secret" and self.secret > 0


def without_secrets(uri: str) -> str:
    """The path; what follows `?` may be a password and is replaced by `…`, and so is a user before an @."""
    path, mark, _ = uri.partition("?")
    path, hash, _ = path.partition("#")
    scheme, slashes, rest = path.partition("://")
    if slashes:
        authority, slash, tail = rest.partition("/")
        path = f"{scheme}://{authority.rpartition('@')[2]}{slash}{tail}"
    return f"{path}{mark or hash}…" if mark or hash else path


def _host(request: Request) -> str:
    """Without a user and password before an @."""
    return request.host.rpartition("@")[2]


def _request_key(frame: Frame, request: Request) -> Hashable:
    uri = without_secrets(request.uri)
    return (
        _host(request),
        request.method,
        uri,
        frame.src,
        frame.dst,
        frame.dport,
        request.user_agent,
    )


def _stream(frame: Frame, *, back: bool = False) -> Hashable:
    """The conversation as seen from the sender of `frame`, or from whom it was sent to."""
    one, other = (frame.src, frame.sport), (frame.dst, frame.dport)
    ends: tuple[_Side, _Side] = (other, one) if back else (one, other)
    return (frame.transport, frame.stream, *ends)


def _keep(into: dict[Hashable, _Value], key: Hashable, value: _Value) -> None:
    """Remember, and forget the oldest where there are too many."""
    if len(into) >= _MAX_OPEN and key not in into:
        del into[next(iter(into))]
    into[key] = value


def _see(into: dict[_Key, Seen], key: _Key, frame: Frame) -> None:
    """One more under `key`; a new key only while there is room."""
    seen = into.get(key)
    if seen is None:
        if len(into) >= _MAX_SEEN:
            return
        seen = into[key] = Seen()
    seen.add(frame)
