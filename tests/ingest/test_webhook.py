"""Alerts over HTTP, against a real server: what is taken, what is refused and how that is said."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tripshark.errors import Transient
from tripshark.ingest.auth import Credentials, Gate
from tripshark.ingest.rate import ClientRate
from tripshark.ingest.webhook import Webhook

JSON = {"content-type": "application/json"}
SECRET = "s3cret-segment-0123456789"


def shape(answer: httpx2.Response) -> dict[str, str]:
    """The error of an answer, after checking that it is the one shape and cannot be HTML."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    document = answer.json()
    assert set(document) == {"error"}
    assert set(document["error"]) == {"code", "message", "hint", "where"}
    return document["error"]


def client(port: int, **options: object) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", **options)


async def raw(port: int, *pieces: bytes) -> bytes:
    """Send bytes as they are and read until the server closes or has answered fully."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    writer.close()
    return answer


async def test_an_alert_is_answered_202_once_it_is_taken(serve, event, intake, meter) -> None:
    """POST / and POST /v1/alerts take the same event; the second is a duplicate with the first's id."""
    async with serve() as port, client(port) as http:
        first = await http.post("/", content=event(), headers=JSON)
        second = await http.post("/v1/alerts", content=event(), headers=JSON)
    assert first.status_code == second.status_code == 202
    assert first.json() == {"alert": "a1", "duplicate": False, "incident": None}
    assert second.json() == {"alert": "a1", "duplicate": True, "incident": None}
    assert [body for _, body, _ in intake.taken] == [event(), event()]
    assert meter.counts == {("webhook", "accepted"): 1, ("webhook", "duplicate"): 1}


async def test_every_recorded_event_is_taken_with_its_bytes(serve, intake) -> None:
    """Whatever Falco really sent is accepted and handed on verbatim."""
    folder = Path(__file__).parents[1] / "falco-events"
    bodies = [each.read_bytes() for each in sorted(folder.glob("*.json"))]
    async with serve() as port, client(port) as http:
        for body in bodies:
            answer = await http.post("/", content=body, headers=JSON)
            assert answer.status_code == 202, answer.text
    assert [body for _, body, _ in intake.taken] == bodies


async def test_cloudevents_come_in_both_modes(serve, event, intake) -> None:
    """Binary mode by ce- headers and structured mode by media type."""
    inner = json.loads(event(7))
    envelope = {"specversion": "1.0", "type": "falco.rule.output.v1", "source": "x", "id": "1"}
    async with serve() as port, client(port) as http:
        binary = await http.post(
            "/",
            content=event(6),
            headers={**JSON, **{f"ce-{key}": value for key, value in envelope.items()}},
        )
        structured = await http.post(
            "/",
            content=json.dumps({**envelope, "data": inner}),
            headers={"content-type": "application/cloudevents+json; charset=utf-8"},
        )
    assert (binary.status_code, structured.status_code) == (202, 202), structured.text
    assert intake.numbers == [6, 7]


@pytest.mark.parametrize(
    ("media", "hint"),
    [
        ("text/plain", "json_output: true"),
        ("application/x-www-form-urlencoded", "application/json"),
        ("text/html", "application/json"),
        ("", "application/json"),
    ],
)
async def test_what_is_not_json_by_its_media_type_is_refused(serve, event, media, hint) -> None:
    """415 says what to set; a browser's form or plain fetch can therefore never post an alert."""
    async with serve() as port, client(port) as http:
        headers = {"content-type": media} if media else {}
        answer = await http.post("/", content=event(), headers=headers)
    assert answer.status_code == 415
    assert hint in shape(answer)["hint"]


async def test_a_body_that_is_no_event_is_refused(serve) -> None:
    """400 in the one error shape."""
    async with serve() as port, client(port) as http:
        for body in (b"", b"{}", b"[]", b"null", b"\xff\xfe", b"{" * 5000, b'{"rule": 1}'):
            answer = await http.post("/", content=body, headers=JSON)
            assert answer.status_code == 400
            assert shape(answer)["code"] == "bad_input"


async def test_a_long_body_is_refused_whether_its_length_is_told_or_not(
    serve, event, intake, meter
) -> None:
    """413 for a content-length beyond the bound and for chunks beyond it; exactly the bound is fine."""
    body = event()

    async def chunks():
        for _ in range(40):
            yield b" " * 1000

    async with serve(max_body=len(body)) as port, client(port) as http:
        fits = await http.post("/", content=body, headers=JSON)
        told = await http.post("/", content=body + b" ", headers=JSON)
        chunked = await http.post("/", content=chunks(), headers=JSON)
    assert fits.status_code == 202
    assert (told.status_code, chunked.status_code) == (413, 413)
    assert shape(told)["code"] == shape(chunked)["code"] == "too_large"
    assert len(intake.taken) == 1
    assert meter.counts["webhook", "too_large"] == 2


async def test_no_more_than_the_bound_is_ever_held(door, meter, event) -> None:
    """A body that never ends is dropped piece by piece and given up on after 16 MiB."""
    webhook = Webhook(door, Gate(), meter, max_body=1000)
    asked = 0

    async def receive() -> dict[str, object]:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b"x" * 65_536, "more_body": True}

    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    await webhook(scope("/", [(b"content-type", b"application/json")]), receive, send)
    assert sent[0]["status"] == 413
    assert (b"connection", b"close") in sent[0]["headers"]
    assert asked <= (16 << 20) // 65_536 + 2


async def test_a_client_that_asks_before_sending_is_told_before_sending(serve, event) -> None:
    """Expect: 100-continue gets 100 for a fitting body and 413 without 100 for a long one."""
    body = event()
    head = (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    )
    async with serve(max_body=2000) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head % len(body))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(body)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 202 ")
        writer.close()
        assert (await raw(port, head % 3000)).startswith(b"HTTP/1.1 413 ")
        assert (await raw(port, head % 10**11)).startswith(b"HTTP/1.1 413 ")


async def test_falcos_own_way_of_posting_works_on_one_connection(serve, event, intake) -> None:
    """Persistent HTTP/1.1 with `TE: gzip` (compress_uploads), as recorded, ten times on one connection."""
    async with serve() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for n in range(10):
            body = event(n)
            writer.write(
                b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: falcosecurity/falco\r\n"
                b"Accept: */*\r\nConnection: TE\r\nTE: gzip\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body) + body
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 202 ")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
        writer.close()
    assert intake.numbers == list(range(10))


async def test_a_compressed_body_is_refused_with_words(serve) -> None:
    """Falco never compresses bodies; what is compressed is not unpacked here."""
    async with serve() as port, client(port) as http:
        answer = await http.post(
            "/", content=b"\x1f\x8b", headers={**JSON, "content-encoding": "gzip"}
        )
    assert answer.status_code == 415
    assert "compressed" in shape(answer)["message"]


async def test_what_cannot_be_made_durable_is_answered_503(serve, event, intake, meter) -> None:
    """No 202 without the disk; the hint and Retry-After come from who refused."""
    intake.refuse_with = Transient("the disk is full", hint="make room", after=2.5)
    async with serve() as port, client(port) as http:
        answer = await http.post("/", content=event(), headers=JSON)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "3"
    assert shape(answer)["hint"] == "make room"
    assert meter.counts == {("webhook", "unavailable"): 1}


async def test_too_many_at_once_are_answered_429(serve, event, intake) -> None:
    """Beyond `in_flight` alerts being made durable the next hears when to come again."""
    held, go = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        held.set()
        await go.wait()

    intake.before = wait
    async with serve(in_flight=1) as port, client(port) as http, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(http.post("/", content=event(1), headers=JSON))
        await held.wait()
        second = await http.post("/", content=event(2), headers=JSON)
        go.set()
    assert first.result().status_code == 202
    assert second.status_code == 429
    assert int(second.headers["retry-after"]) >= 1
    assert shape(second)["code"] == "too_many"


async def test_a_client_beyond_its_rate_is_answered_429(serve, event, intake) -> None:
    """The bucket's burst goes through; the next alert is refused with the seconds to wait."""
    rate = ClientRate(per_second=0.1, burst=3)
    async with serve(rate=rate) as port, client(port) as http:
        codes = [
            (await http.post("/", content=event(n), headers=JSON)).status_code for n in range(4)
        ]
        answer = await http.post("/", content=event(9), headers=JSON)
    assert codes == [202, 202, 202, 429]
    assert 1 <= int(answer.headers["retry-after"]) <= 10


async def test_each_credential_opens_the_door_and_nothing_else_does(serve, event, intake) -> None:
    """Bearer (also as a password), basic and secret path are alternatives; a 401 challenges and tells nothing."""
    gate = Gate(Credentials(bearer=("tok-1", "tök-2"), basic={"falco": "p:w"}, secret_path=SECRET))
    auth = "authorization"
    async with serve(gate) as port, client(port) as http:

        async def post(path: str = "/", **headers: str | bytes) -> httpx2.Response:
            return await http.post(path, content=event(), headers={**JSON, **headers})

        good = [
            await post(**{auth: "Bearer tok-1"}),
            await post(**{auth: "bearer tök-2".encode()}),
            await http.post("/", content=event(), headers=JSON, auth=("falco", "p:w")),
            await http.post("/", content=event(), headers=JSON, auth=("anybody", "tök-2")),
            await post(f"/{SECRET}"),
            await post(f"/v1/alerts/{SECRET}"),
        ]
        bad = [
            await post(),
            await post(**{auth: "Bearer tok-"}),
            await post(**{auth: "Bearer"}),
            await post(**{auth: f"Bearer {SECRET}"}),
            await post(**{auth: "Basic tok-1"}),
            await post(**{auth: "Basic !!!!"}),
            await post(**{auth: "tok-1"}),
            await http.post("/", content=event(), headers=JSON, auth=("falco", "p")),
            await http.post("/", content=event(), headers=JSON, auth=("tok-1", "")),
            await http.post("/", content=event(), headers=JSON, auth=("anybody", SECRET)),
            await post("/wrong-segment"),
            await post(f"/v1/alerts/{SECRET}x"),
            await post("/wrong-segment", **{auth: "Bearer tok-1"}),
        ]
    assert [each.status_code for each in good] == [202] * 6
    assert [each.status_code for each in bad] == [401] * 13
    for each in bad:
        assert "Bearer" in each.headers["www-authenticate"]
        assert "Basic" in each.headers["www-authenticate"]
        shape(each)
        for secret in ("tok-1", "p:w", SECRET):
            assert secret not in each.text
    assert len(intake.taken) == 6


async def test_two_authorization_headers_are_one_too_many(serve, event) -> None:
    """A proxy and we could read different ones: neither counts."""
    gate = Gate(Credentials(bearer=("good",)))
    headers = [
        ("content-type", "application/json"),
        ("authorization", "Bearer good"),
        ("authorization", "Bearer bad"),
    ]
    async with serve(gate) as port, client(port) as http:
        answer = await http.post("/", content=event(), headers=headers)
    assert answer.status_code == 401


async def test_without_a_secret_other_paths_are_not_there(serve, event) -> None:
    """404 in the one shape; 405 for reading where alerts are posted."""
    async with serve() as port, client(port) as http:
        answer = await http.post("/other", content=event(), headers=JSON)
        read = await http.get("/v1/alerts")
    assert (answer.status_code, read.status_code) == (404, 405)
    assert shape(answer)["code"] == "not_found"
    assert shape(read)["code"] == "method_not_allowed"
    assert read.headers["allow"] == "POST"


@pytest.mark.parametrize("field", ["rule", "output", "hostname", "source", "tags"])
async def test_what_stands_in_an_alert_is_never_echoed_as_markup(serve, event, field) -> None:
    """Markup, control characters and header breaks in any field stay out of the answer."""
    evil = '<script>alert(1)</script>\r\nSet-Cookie: a=b\r\n\r\n"}{'
    async with serve() as port, client(port) as http:
        answer = await http.post(
            "/", content=event(1, **{field: [evil] if field == "tags" else evil}), headers=JSON
        )
    assert answer.status_code in (202, 400)
    assert answer.headers["content-type"] == "application/json"
    assert "set-cookie" not in answer.headers
    assert b"<script>" not in answer.content


def scope(path: str, headers: list[tuple[bytes, bytes]]) -> dict[str, object]:
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": headers,
        "client": ("127.0.0.1", 1),
    }


CODES = {202, 400, 401, 408, 413, 415, 429, 503}


@settings(
    max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    pieces=st.lists(st.binary(max_size=300), max_size=4)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["rule", "output_fields", "time", "priority", "data", "specversion"]
                )
                | st.text(max_size=5),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    ).map(lambda value: [json.dumps(value).encode()]),
    headers=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    b"content-type",
                    b"authorization",
                    b"ce-type",
                    b"ce-specversion",
                    b"content-length",
                ]
            ),
            st.sampled_from([b"application/json", b"application/cloudevents+json", b"1"])
            | st.binary(max_size=20).map(
                lambda each: each.replace(b"\n", b"").replace(b"\r", b"")
            ),
        ),
        max_size=4,
    ),
    path=st.sampled_from(["/", "/v1/alerts", f"/{SECRET}", "/nothing-like-it"]),
)
async def test_any_bytes_get_one_of_the_documented_answers(
    door, meter, pieces, headers, path
) -> None:
    """Whatever comes in, the answer has a documented code and is a receipt or the one error shape."""
    headers = [
        (name, value)
        for name, value in headers
        if name != b"content-length"
        or value.isdigit()  # the HTTP parser lets nothing else through
    ]
    gate = Gate(
        Credentials(bearer=("t",), secret_path=SECRET) if len(path) > 10 else Credentials()
    )
    webhook = Webhook(door, gate, meter, max_body=500)
    messages = [{"type": "http.request", "body": each, "more_body": True} for each in pieces]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return messages.pop(0)

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    await webhook(scope(path, headers), receive, send)
    assert sent[0]["status"] in CODES
    assert (b"content-type", b"application/json") in sent[0]["headers"]
    document = json.loads(sent[1]["body"])
    assert set(document) in ({"error"}, {"alert", "duplicate", "incident"})


async def test_a_body_that_does_not_come_is_given_up_on(serve, event, meter, monkeypatch) -> None:
    """408 after a while: a half request must not wait for ever."""
    monkeypatch.setattr("tripshark.ingest.webhook.BODY_SECONDS", 0.1)
    async with serve() as port:
        answer = await raw(
            port,
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{",
        )
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert meter.counts == {("webhook", "too_slow"): 1}


async def test_a_sender_that_goes_away_within_the_body_hurts_nobody(serve, event, intake) -> None:
    """Half an alert is no alert; the next one is taken."""
    async with serve() as port, client(port) as http:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 5000\r\n\r\n" + event()[:50]
        )
        await writer.drain()
        writer.close()
        answer = await http.post("/", content=event(), headers=JSON)
    assert answer.status_code == 202
    assert len(intake.taken) == 1
