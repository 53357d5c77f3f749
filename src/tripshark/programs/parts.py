"""Settings turned into the values that the parts are made from; shared by programs and commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tripshark.errors import BadInput
from tripshark.formats import bpf
from tripshark.formats.rulefile import Loaded, load
from tripshark.model import retention
from tripshark.model.part import node_of
from tripshark.model.plan import Defaults, Limits
from tripshark.model.recording import Policy, Selector
from tripshark.model.target import Identity
from tripshark.ports import Clock
from tripshark.recorder.config import RecorderConfig
from tripshark.respond.budget import Bounds
from tripshark.scout.config import ScoutConfig
from tripshark.settings import Settings
from tripshark.store.catalogue import SqlCatalogue
from tripshark.store.objects import Objects
from tripshark.store.outbox import Outbox
from tripshark.store.remote import Cache, NodeShelf, Remote
from tripshark.store.vault import FolderVault
from tripshark.targets.local import Resident

SECOND = 1_000_000_000


def defaults(settings: Settings) -> Defaults:
    capture = settings.capture
    return Defaults(
        before_ns=round(capture.before * SECOND),
        after_ns=round(capture.after * SECOND),
        idle_ns=round(capture.idle * SECOND),
        snaplen=capture.snaplen,
        limits=Limits(
            max_bytes=capture.max.bytes,
            max_packets=capture.max.packets,
            extend_ns=round(capture.max.extend * SECOND),
        ),
    )


def bounds(settings: Settings) -> Bounds:
    given = settings.bounds
    return Bounds(
        concurrent=given.concurrent,
        parts_per_target=given.parts_per_target,
        burst=given.rate.burst,
        refill_ns=round(given.rate.refill * SECOND),
        cooldown_ns=round(given.cooldown * SECOND),
    )


def disk_budget(settings: Settings) -> retention.Budget:
    given = settings.bounds
    return retention.Budget(
        max_age_ns=round(given.retention * SECOND),
        max_bytes=given.disk,
        reserve_bytes=given.reserve,
    )


def residents(settings: Settings) -> tuple[Resident, ...]:
    """The static map; an entry without a pod name is called by its containers or namespace."""
    return tuple(
        Resident(
            netns=each.netns,
            pid=each.pid,
            identity=Identity(
                namespace=each.namespace,
                pod=each.pod,
                uid=each.uid,
                labels=each.labels,
                owner=each.owner,
                node=each.node,
                service_account=each.service_account,
                images=each.images,
                containers=each.containers,
            ),
        )
        for each in settings.targets.static
    )


def recorder_config(
    settings: Settings, *, gid: int, allowed_uids: tuple[int, ...]
) -> RecorderConfig:
    """What the privileged process is told; its filter is compiled here, not there. Raises `BadInput`."""
    recorder = settings.recorder
    programs = {1: "", 101: ""}
    if recorder.filter:
        for linktype in programs:
            program = bpf.compile(recorder.filter, linktype, recorder.snaplen, optimised=2048)
            programs[linktype] = program.accepting(recorder.snaplen).hex()
    return RecorderConfig(
        socket=str(settings.recorder_socket),
        group=gid,
        allowed_uids=allowed_uids,
        per_target=recorder.per_target,
        total=recorder.total,
        copies=recorder.copies,
        tombstone_s=max(1, round(recorder.tombstone)),
        snaplen=recorder.snaplen,
        flow_cut=recorder.flow_cut,
        filter=programs[1],
        filter_raw=programs[101],
        include=recorder.include or ("*",),
        exclude=recorder.exclude,
        host=recorder.host,
        mode=settings.record.default.value,
    )


def scout_config(settings: Settings, *, gid: int, allowed_uids: tuple[int, ...]) -> ScoutConfig:
    """What the process is told that alone asks container runtimes. Raises `BadInput`."""
    return ScoutConfig(
        socket=str(settings.scout_socket),
        group=gid,
        allowed_uids=allowed_uids,
        sockets=tuple(str(each) for each in settings.containers.sockets),
        tombstone_s=max(1, round(settings.recorder.tombstone)),
    )


def policy(settings: Settings) -> Policy:
    """Which pods are recorded, and how much of them."""
    given = settings.record
    return Policy(
        default=given.default,
        selectors=tuple(
            Selector(
                namespace=each.namespace,
                labels=each.labels,
                record=each.record,
                weight=each.weight,
            )
            for each in given.selectors
        ),
        privacy=given.privacy,
        annotations=given.annotations,
    )


def node_name(settings: Settings, machine: str) -> str:
    """What this node is called in the cluster."""
    return settings.kubernetes.node or machine


def outbox(
    settings: Settings,
    *,
    vault: FolderVault,
    catalogue: SqlCatalogue,
    clock: Clock,
    node: str,
    tell: Callable[[str, Mapping[str, object]], None],
) -> Outbox | None:
    """What sends evidence to the object store, where one is given. Raises `BadInput` for a URL that means none."""
    store = objects(settings)
    if store is None:
        return None
    return Outbox(
        vault=vault,
        catalogue=catalogue,
        objects=store,
        node=node_of(node),
        clock=clock,
        keep=settings.store.keep,
        tell=tell,
    )


def objects(settings: Settings) -> Objects | None:
    """The operator's object store, where one is given. Raises `BadInput` for a URL or an option that is none."""
    given = settings.store
    if not given.url:
        return None
    return Objects(
        given.url, {name: value.get_secret_value() for name, value in given.options.items()}
    )


def shelf(
    settings: Settings, *, vault: FolderVault, catalogue: SqlCatalogue, node: str
) -> NodeShelf | None:
    """Where a node's evidence is read, when it may have been moved to the store. Raises `BadInput`, `Transient`."""
    store = objects(settings)
    if store is None:
        return None
    cache = Cache(settings.data / "cache", most=settings.store.cache)
    cache.prepare()
    return NodeShelf(vault, catalogue, store, Remote(store, cache), node=node_of(node))


def rule_files(settings: Settings) -> Iterator[Path]:
    """Every rule file that the settings name: files as they are, of folders the *.yaml in order. Raises `BadInput`."""
    for path in settings.rule_paths:
        if path.is_dir():
            yield from sorted(
                each
                for each in path.iterdir()
                if each.suffix in (".yaml", ".yml") and not each.name.startswith(".")
            )
        elif path.exists():
            yield path
        else:
            raise BadInput(
                "no such rule file or folder", where=str(path), hint="see `rules:` in the settings"
            )


def load_rules(settings: Settings) -> Loaded:
    """All rule files, read and checked together; problems are in the result. Raises `BadInput` for unreadable files."""
    texts = []
    for path in rule_files(settings):
        try:
            texts.append((str(path), path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError) as problem:
            raise BadInput(f"cannot be read: {problem}", where=str(path)) from problem
    return load(texts, check_filter=lambda text: bpf.compile(text, 1))
