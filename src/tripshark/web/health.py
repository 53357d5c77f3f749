"""Whether this node or hub is alive, ready and well: for probes, for people, and for Prometheus."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from tripshark.errors import TripsharkError
from tripshark.model.alert import Json
from tripshark.model.incident import EVERY
from tripshark.web import shapes
from tripshark.web.access import INCIDENTS, identify
from tripshark.web.answers import SAFE, json
from tripshark.web.caller import caller_of, find_out
from tripshark.web.metrics import CONTENT_TYPE, Now
from tripshark.web.parts import Check, Parts

CHECK_SECONDS = 3.0


async def healthz(request: Request, parts: Parts) -> Response:
    return json({"alive": True})


async def readyz(request: Request, parts: Parts) -> Response:
    results = await asyncio.gather(*(_checked(each) for each in parts.checks.values()))
    ready = not any(results)
    upstream = parts.upstream(parts.clock.now_ns())
    detailed = await _may_know(request, parts)
    answer: dict[str, Json] = {"ready": ready}
    if detailed:  # host names and paths are for those who may read
        answer["checks"] = {
            name: {"ok": not problem, "problem": problem}
            for name, problem in zip(parts.checks, results, strict=True)
        }
        answer["upstream"] = _upstream(parts)
        answer["warnings"] = [
            *upstream.problems(),
            *await warnings(parts),
        ]
    else:
        answer["checks"] = {
            name: {"ok": not problem} for name, problem in zip(parts.checks, results, strict=True)
        }
    return json(answer, 200 if ready else 503)


async def _may_know(request: Request, parts: Parts) -> bool:
    """The caller of an open path may see everything."""
    if parts.access is None and parts.signin is None:
        return parts.gate.refuse(request.scope["headers"]) is None
    try:
        if parts.signin is not None:
            await find_out(request, parts, parts.signin)
            return await caller_of(request, parts).sees_everything()
        if parts.access is not None:
            return await (await identify(request, parts.access)).sees_everything()
    except TripsharkError:
        pass
    return False


async def warnings(parts: Parts) -> list[str]:
    """What works less well than it should, and makes nobody unready."""
    said = [words for source in parts.sources() for words in source.problems()]
    said += [f"a list of indicators is not read: {each}" for each in parts.unread_lists()]
    if parts.around is not None:
        said += (await parts.around()).problems
    if parts.outbox is not None:
        outbox = parts.outbox()
        said += [outbox.problem] if outbox.problem else []
        said += [f"evidence of {id} is not sent: {why}" for id, why in outbox.refused.items()]
        if outbox.lost:
            said.append(f"{outbox.lost} incidents were removed before they could be sent")
    if parts.harvest is not None and parts.harvest().problem:
        said.append(f"the store is not read: {parts.harvest().problem}")
    return said


async def _checked(check: Check) -> str:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check()
    except TimeoutError:
        return f"no answer within {CHECK_SECONDS:.0f} s"


def _upstream(parts: Parts) -> list[Json]:
    return [
        {
            "hostname": each.hostname,
            "version": each.version,
            "last": shapes.when(each.last_ns),
            "heartbeat": shapes.when(each.heartbeat_ns),
            "heartbeats": each.heartbeats,
            "every_seconds": round(each.every_s, 3),
            "late": each.is_late,
            "gaps": each.gaps_total,
            "restarts": each.restarts,
            "kernel_drops": each.kernel_drops,
            "queue_drops": each.queue_drops,
            "unheard": each.unheard,
        }
        for each in parts.upstream(parts.clock.now_ns()).falcos
    ]


async def metrics(request: Request, parts: Parts) -> Response:
    if not parts.metrics_open:
        await caller_of(request, parts).require("get", INCIDENTS, [EVERY])
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            targets = await parts.targets.all()
    except (TripsharkError, TimeoutError):
        targets = None
    falcos = parts.upstream(parts.clock.now_ns()).falcos
    journal = parts.journal()
    now = Now(
        targets=targets,
        refusals=await parts.catalogue.refusal_counts(),
        journal_waiting=journal.waiting,
        journal_bytes=journal.bytes,
        falco_gaps=sum(each.gaps_total for each in falcos),
        falco_late=sum(each.is_late for each in falcos),
        falco_kernel_drops=sum(each.kernel_drops for each in falcos),
        falco_queue_drops=sum(each.queue_drops for each in falcos),
        falco_unheard=sum(each.unheard for each in falcos),
        evidence_bytes=await asyncio.to_thread(parts.vault.used_bytes),
        now_ns=parts.clock.now_ns(),
        outbox=None if parts.outbox is None else parts.outbox(),
        harvest=None if parts.harvest is None else parts.harvest(),
        signin=parts.signin,
        around=None if parts.around is None else await parts.around(),
    )
    return Response(parts.metrics.exposition(now), headers={**SAFE, "content-type": CONTENT_TYPE})
