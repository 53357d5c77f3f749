"""Live views over HTTP: who may watch what, how many at once, and who may change a filter."""

from __future__ import annotations

import io
import zipfile

import pytest

from tests.web.test_api import client, shape
from tripshark.errors import NotFound
from tripshark.formats.wireshark_profile import archive
from tripshark.respond.live import Live
from tripshark.web.views import MOST, Views


class NoRecorder:
    """`ports.Recorder` of a machine where nothing is recorded: asking it would be a mistake of ours."""


class OneView:
    """`web.views.View` that keeps what it was told."""

    def __init__(self, target) -> None:
        self.target = target
        self.filters: list[str] = []

    def filter(self, text: str) -> None:
        self.filters.append(text)

    def stop(self) -> None:
        self.filters.append("stopped")


def views_of(world) -> Views:
    return Views(
        Live(
            recorder=NoRecorder(),
            targets=world.targets,
            known=world.catalogue,
            clock=world.parts.clock,
        )
    )


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({}, 400),
        ({"target": "a", "incident": "b"}, 400),
        ({"target": "payments/shop0", "filter": "tcp prot"}, 400),
        ({"target": "payments/shop0", "filter": "host evil.example"}, 400),
        ({"target": "payments/shop0", "filter": "tcp\n"}, 400),
        ({"target": "payments/shop0", "before": "soon"}, 400),
        ({"target": "payments/shop0", "before": "25h"}, 400),
        ({"target": "payments/shop0", "befor": "1s"}, 400),
        ({"target": "payments/nobody"}, 404),
        ({"incident": "../../etc"}, 400),
        ({"incident": "20261124-9999"}, 404),
    ],
)
async def test_what_cannot_be_watched_is_refused_before_anything_is_read(
    world, asked, status
) -> None:
    """In the one shape; no ring is touched."""
    async with world.served(views=views_of(world)) as port, client(port) as http:
        answer = await http.get("/v1/live", params=asked)
    assert answer.status_code == status
    shape(answer)


async def test_a_sealed_incident_is_not_followed(world) -> None:
    """The sentence says where its packets are instead."""
    async with world.served(views=views_of(world)) as port, client(port) as http:
        answer = await http.get("/v1/live", params={"incident": world.incident.id})
    assert answer.status_code == 409
    assert "tripshark open" in shape(answer)["hint"]


async def test_a_hub_has_nothing_to_watch(world) -> None:
    """It says who has."""
    async with world.served(kind="hub") as port, client(port) as http:
        answer = await http.get("/v1/live", params={"target": "payments/shop0"})
    assert answer.status_code == 404
    assert "node" in shape(answer)["hint"]


async def test_only_who_opened_a_view_changes_its_filter(world, make) -> None:
    """By its name, which nobody else is told; another caller's view is not even there."""
    views, mine, other = views_of(world), OneView(make["target"]()), OneView(make["target"]())
    name = views.add(mine, "api:127.0.0.1")
    foreign = views.add(other, "api:192.0.2.7")
    async with world.served(views=views) as port, client(port) as http:
        done = await http.post(f"/v1/live/{name}", json={"filter": "tcp"})
        assert (done.status_code, done.json()) == (200, {"filter": "tcp"})
        for wrong in (foreign, "0" * 32):
            answer = await http.post(f"/v1/live/{wrong}", json={"filter": "udp"})
            assert answer.status_code == 404
        assert (await http.post(f"/v1/live/{name}", json={"filer": "x"})).status_code == 400
        assert (await http.post(f"/v1/live/{name}", content=b"x" * 20_000)).status_code in (
            413,
            415,
        )
        plain = await http.post(
            f"/v1/live/{name}", content=b'{"filter": "x"}', headers={"content-type": "text/plain"}
        )
        assert plain.status_code == 415
    assert (mine.filters, other.filters) == (["tcp"], [])
    views.stop()
    assert mine.filters[-1] == "stopped"


def test_views_are_bounded_and_forgotten(world, make) -> None:
    """One more than may be is told to come back; a view that ended makes room."""
    from tripshark.errors import TooMany

    views = views_of(world)
    names = [views.add(OneView(make["target"]()), "somebody") for _ in range(MOST)]
    with pytest.raises(TooMany):
        views.add(OneView(make["target"]()), "somebody")
    views.remove(names[0])
    with pytest.raises(NotFound):
        views.of(names[0], "somebody")
    assert views.add(OneView(make["target"]()), "somebody")


async def test_the_profile_is_handed_out(world) -> None:
    """The very zip that the command writes; whoever has it already is told so."""
    async with world.served() as port, client(port) as http:
        answer = await http.get("/v1/wireshark/profile.zip")
        assert answer.content == archive()
        assert zipfile.is_zipfile(io.BytesIO(answer.content))
        again = await http.get(
            "/v1/wireshark/profile.zip", headers={"if-none-match": answer.headers["etag"]}
        )
    assert again.status_code == 304
