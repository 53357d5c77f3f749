"""The one page: what was captured, what is recorded, what was refused, and what may have been lost. No script."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256

from tripshark.model.evidence import rfc3339
from tripshark.model.incident import EVERY, Incident, State
from tripshark.model.target import Target
from tripshark.ports import AlertRow
from tripshark.web.html import Html, document, el, sheet

_CSS = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6570; --line: #d8dde3; --ground: #fff; --bad: #b42318; --good: #1a7f4b; --link: #0b5cad }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --soft: #9aa5b1; --line: #333b44; --ground: #14181d; --bad: #ff8f80; --good: #62d296; --link: #7db8ff }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--ground) }
h1 { font-size: 1.3rem; margin: 0 0 .2rem } h2 { font-size: 1rem; margin: 2rem 0 .4rem }
p { margin: .3rem 0; color: var(--soft) }
div { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); overflow-wrap: break-word; max-width: 28rem }
th { font-weight: 600; color: var(--soft); white-space: nowrap }
td { min-width: 4rem }
.n { text-align: right; white-space: nowrap } .t { white-space: nowrap }
.bad { color: var(--bad) } .good { color: var(--good) }
a { color: var(--link) } code { font: 13px ui-monospace, monospace }
"""
_HASH = b64encode(sha256(_CSS.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def render(
    *,
    incidents: Sequence[Incident],
    targets: Sequence[Target],
    away: str,
    refusals: Sequence[AlertRow],
    counts: Mapping[str, int],
    problems: Sequence[str],
    now_ns: int,
    is_hub: bool = False,
) -> bytes:
    """The whole page as UTF-8. Everything given may be hostile."""
    return document(
        el(
            "head",
            el("meta", charset="utf-8"),
            el("meta", name="viewport", content="width=device-width, initial-scale=1"),
            el("title", "Tripshark"),
            sheet(_CSS),
        ),
        el(
            "body",
            el(
                "header",
                el("h1", "Tripshark"),
                el(
                    "p",
                    f"{'The fleet' if is_hub else 'This machine'} at {_moment(now_ns)}. Reload for news.",
                ),
            ),
            el(
                "main",
                _problems((*([away] if away else []), *problems)),
                _incidents(incidents, now_ns, is_hub=is_hub),
                *([] if is_hub else [_targets(targets, now_ns)]),
                _refusals(refusals, counts, now_ns),
            ),
            el("footer", el("p", "The same as JSON: ", *_links())),
        ),
    )


def _links() -> list[Html]:
    names = ("incidents", "targets", "refusals", "rules", "openapi.json")
    return [el("span", el("a", name, href=f"/v1/{name}"), " ") for name in names]


def _problems(problems: Sequence[str]) -> Html:
    if not problems:
        return el("p", el("span", "No loss upstream is known.", class_="good"))
    return el(
        "section",
        el("h2", "What may be lost"),
        el("ul", *(el("li", each, class_="bad") for each in problems)),
    )


def _incidents(incidents: Sequence[Incident], now_ns: int, *, is_hub: bool) -> Html:
    rows = []
    for each in incidents:
        base = f"/v1/incidents/{each.id}"
        has_file = each.state in (State.SEALED, State.EMPTY)
        # of a fleet: one file out of however many parts
        names = (
            {"merged": "merged.pcapng", "parts": "parts"}
            if is_hub
            else {"pcapng": "evidence.pcapng"}
        )
        links = [el("span", el("a", n, href=f"{base}/{file}"), " ") for n, file in names.items()]
        rows.append(
            el(
                "tr",
                el("td", el("a", each.id, href=base), class_="t"),
                el("td", _ago(each.t0_ns, now_ns), class_="t", title=rfc3339(max(0, each.t0_ns))),
                el("td", each.title, *_others(each)),
                el("td", each.falco_rule),
                el("td", f"{each.state.value}"),
                el(
                    "td",
                    each.word.value if each.sealed_ns else "",
                    class_="good" if each.word.value == "complete" else "bad",
                ),
                el("td", f"{each.alerts}", class_="n"),
                el("td", f"{each.packets}", class_="n"),
                el("td", *(links if has_file else ())),
            )
        )
    return _table(
        "Incidents",
        (
            "Incident",
            "Event",
            "Target",
            "Falco rule",
            "State",
            "Ledger",
            "#Alerts",
            "#Packets",
            "Evidence",
        ),
        rows,
        "None yet. A capture by hand: tripshark capture TARGET.",
    )


def _others(incident: Incident) -> tuple[Html, ...]:
    """Whose packets are in it as well: the other end's, a workload's, a whole machine's."""
    names = [
        "others" if each == EVERY else each
        for each in incident.namespaces
        if each != incident.namespace
    ]
    return (el("p", f"with {', '.join(names)}"),) if incident.namespace and names else ()


def _targets(targets: Sequence[Target], now_ns: int) -> Html:
    rows = []
    for each in targets:
        oldest = min((ring.oldest_ns for ring in each.rings if ring.oldest_ns), default=0)
        drops = sum(ring.drops for ring in each.rings)
        rows.append(
            el(
                "tr",
                el("td", each.title),
                el("td", "alive" if each.alive else f"gone {_ago(each.gone_ns, now_ns)}"),
                el("td", each.mode),
                el("td", _ago(oldest, now_ns).removesuffix(" ago") if oldest else "none"),
                el("td", f"{sum(ring.packets for ring in each.rings)}", class_="n"),
                el("td", f"{drops}", class_="n bad" if drops else "n"),
                el("td", each.note),
            )
        )
    return _table(
        "Targets",
        ("Target", "Alive", "Recorded", "History", "#Packets", "#Drops", "Note"),
        rows,
        "Nothing is being recorded.",
    )


def _refusals(refusals: Sequence[AlertRow], counts: Mapping[str, int], now_ns: int) -> Html:
    rows = []
    for each in refusals:
        refusal = each.refusal
        if refusal is None:
            continue
        rows.append(
            el(
                "tr",
                el("td", _ago(each.accepted.received_ns, now_ns), class_="t"),
                el("td", each.accepted.alert.rule),
                el("td", refusal.reason.value),
                el("td", refusal.message),
                el("td", refusal.hint),
                el("td", f"{1 + each.repeats}", class_="n"),
            )
        )
    total = sum(counts.values())
    return _table(
        f"Refused ({total} alerts in all)" if total else "Refused",
        ("Received", "Falco rule", "Reason", "Why", "What would change it", "#Times"),
        rows,
        "No alert was refused.",
    )


def _table(title: str, columns: Sequence[str], rows: Sequence[Html], nothing: str) -> Html:
    if not rows:
        return el("section", el("h2", title), el("p", nothing))
    head = [
        el(
            "th",
            each.removeprefix("#"),
            scope="col",
            **({"class_": "n"} if each[0] == "#" else {}),
        )
        for each in columns
    ]
    table = el("table", el("thead", el("tr", *head)), el("tbody", *rows))
    return el("section", el("h2", title), el("div", table))


def _moment(at_ns: int) -> str:
    return f"{rfc3339(at_ns)[:19].replace('T', ' ')} UTC"


def _ago(then_ns: int, now_ns: int) -> str:
    """A distance for people: `12 s ago`, `3 h ago`."""
    if then_ns <= 0:
        return ""
    seconds = max(0, now_ns - then_ns) / 1e9
    for size, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name} ago"
    return f"{seconds:.0f} s ago"
