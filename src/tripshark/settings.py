"""Every setting of Tripshark: what it means, its unit, its default, and where its value came from.

Sources, each stronger than the one before: defaults, the YAML file, environment variables (`TRIPSHARK_…`, `__`
between levels), the command line. They are read once, by `load`; programs hand the values on as arguments.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from ipaddress import ip_address
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)

from tripshark.errors import BadInput
from tripshark.formats.ruledocuments import SNAPLEN_FULL, SNAPLEN_HEADERS, snaplen
from tripshark.model.recording import MAX_WEIGHT, Mode
from tripshark.model.units import SECONDS, SIZES, bytes_of, count_of, seconds_of

DEFAULT_CONFIG = Path("/etc/tripshark/tripshark.yaml")
SYSTEM_DATA = Path("/var/lib/tripshark")
PREFIX = "TRIPSHARK_"

# ------------------------------------------------------------------------------------- words to numbers


@dataclass(frozen=True, slots=True)
class Unit:
    """Marks a field's unit for people; hung on the types below."""

    name: str


Bytes = Annotated[int, BeforeValidator(bytes_of), Field(ge=0), Unit("bytes")]
Seconds = Annotated[float, BeforeValidator(seconds_of), Field(ge=0), Unit("duration")]
Count = Annotated[int, BeforeValidator(count_of), Field(ge=0), Unit("count")]
Snaplen = Annotated[int, BeforeValidator(snaplen), Unit("bytes per packet")]


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Only this machine can reach it. A name other than localhost is taken to be reachable."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def listen_of(value: object) -> Listen:
    """`127.0.0.1:2803`, `[::]:2803`, `localhost:0`. Raises `ValueError`."""
    if isinstance(value, Listen):
        return value
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:\[\]/]+)):([0-9]{1,5})", str(value))
    if not match or int(match[3]) > 65_535:
        raise ValueError(f"{value!r} is not ADDRESS:PORT, such as 127.0.0.1:2803 or [::1]:2803")
    return Listen(host=match[1] or match[2], port=int(match[3]))


ListenAddress = Annotated[Listen, BeforeValidator(listen_of), Unit("address:port")]


# --------------------------------------------------------------------------------------------- the tree


class _Group(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, arbitrary_types_allowed=True
    )


class RecorderSettings(_Group):
    """The flight recorder: how much of the past is kept in memory, and of whom."""

    per_target: Bytes = Field(
        default=16_000_000,
        description="Ring memory of one target, times its weight; less where there is not enough for all.",
    )
    total: Bytes = Field(
        default=512_000_000, description="Ring memory of all targets together, enforced."
    )
    snaplen: Snaplen = Field(
        default=SNAPLEN_FULL,
        description="How much of each packet is recorded: full, headers (128 bytes) or bytes.",
    )
    flow_cut: Bytes = Field(
        default=1_000_000,
        lt=1 << 30,
        description="Recorded in full of each flow and direction (at most a sixteenth of the ring), of the rest headers; 0: all.",
    )
    tombstone: Seconds = Field(
        default=600.0,
        description="How long the history of a dead namespace stays readable.",
    )
    copies: Bytes = Field(
        default=128_000_000,
        description="Memory for histories of the dead and frozen copies together; oldest out first.",
    )
    filter: str = Field(
        default="",
        description="What rings record at all, in pcap-filter(7) language; empty: everything.",
    )
    include: tuple[str, ...] = Field(
        default=(),
        description="Names of network namespaces to record, with * and ?; empty: all.",
    )
    exclude: tuple[str, ...] = Field(
        default=(), description="Names of network namespaces never to record, with * and ?."
    )
    host: bool = Field(default=True, description="Record the host's own namespace too.")
    socket: Path | None = Field(
        default=None,
        description="Unix socket between recorder and responder; default <data>/run/recorder.sock.",
    )
    group: str = Field(
        default="tripshark",
        description="Group that may talk to the recorder; used when running as root.",
    )


class StaticTarget(_Group):
    """Who lives in a namespace, where no Kubernetes can tell: give `netns`, `pid` or `containers`."""

    netns: str = Field(default="", description="Name of the namespace below /run/netns.")
    pid: int | None = Field(
        default=None, ge=1, description="Host pid of a process living in the namespace."
    )
    containers: tuple[str, ...] = Field(
        default=(), description="Container ids living there (12 hex digits or more)."
    )
    namespace: str = Field(default="", description="Kubernetes namespace to call it by.")
    pod: str = Field(default="", description="Pod name to call it by.")
    uid: str = Field(default="", description="Pod uid.")
    labels: dict[str, str] = Field(default_factory=dict, description="Labels of the pod.")
    owner: str = Field(default="", description="Who owns the pod, such as Deployment/checkout.")
    service_account: str = Field(default="", description="Service account of the pod.")
    images: tuple[str, ...] = Field(default=(), description="Images of its containers.")
    node: str = Field(default="", description="Name of the node; default: this machine's name.")

    @model_validator(mode="after")
    def _names_one_place(self) -> StaticTarget:
        if self.netns and self.pid is not None:
            raise ValueError("netns and pid are both given; one names the namespace")
        if not self.netns and self.pid is None and not self.containers:
            raise ValueError("which namespace is meant? give netns, pid or containers")
        return self


class TargetSettings(_Group):
    """Who runs where."""

    static: tuple[StaticTarget, ...] = Field(
        default=(), description="Identities of namespaces on machines without Kubernetes."
    )


class LimitSettings(_Group):
    """Where a single capture stops, whatever else happens."""

    bytes: Bytes = Field(default=50_000_000, gt=0, description="Bytes of packets written.")
    packets: Count = Field(default=200_000, gt=0, description="Packets written.")
    extend: Seconds = Field(
        default=120.0, description="By how much repeated alerts may lengthen `after` in all."
    )


class CaptureSettings(_Group):
    """What a capture is where neither the rule nor the person asking says otherwise."""

    before: Seconds = Field(
        default=30.0, description="How far before the event to reach back, at least."
    )
    after: Seconds = Field(default=10.0, description="How long after the event to go on.")
    idle: Seconds = Field(
        default=0.0,
        description="End early when the filtered traffic is silent this long; 0: never.",
    )
    snaplen: Snaplen = Field(
        default=SNAPLEN_FULL,
        description="Bytes per packet kept as evidence: full, headers, bytes.",
    )
    max: LimitSettings = Field(
        default_factory=LimitSettings, description="Where a single capture stops."
    )
    both_ends: bool = Field(
        default=True, description="Where the alert's peer is another pod, record its end as well."
    )


class RateSettings(_Group):
    """A token bucket per rule and target: `burst` at once, then one per `refill`."""

    burst: int = Field(default=10, ge=1, description="Captures that may start at once.")
    refill: Seconds = Field(
        default=60.0, description="Time until one more capture may start; 0: no limit."
    )


class BoundSettings(_Group):
    """What all captures together may cost; what is shed is a stored refusal."""

    concurrent: int = Field(default=16, ge=1, description="Captures running at once.")
    parts_per_target: int = Field(
        default=4, ge=1, description="Captures running at once on one target."
    )
    rate: RateSettings = Field(
        default_factory=RateSettings, description="New captures per rule and target."
    )
    cooldown: Seconds = Field(
        default=0.0,
        description="After a capture the same rule on the same target rests this long.",
    )
    disk: Bytes = Field(
        default=10_000_000_000,
        description="Disk space of all evidence; beyond it the oldest is removed, then refused.",
    )
    reserve: Bytes = Field(
        default=500_000_000, description="Free space of the disk that is never touched."
    )
    retention: Seconds = Field(
        default=30 * 86_400.0, description="Age at which evidence is removed; 0: never."
    )
    remember: Seconds = Field(
        default=365 * 86_400.0,
        description="Age at which the record of an incident without evidence is forgotten; 0: never.",
    )


class TlsSettings(_Group):
    """TLS of one listener."""

    cert: Path | None = Field(default=None, description="Server certificate chain, PEM.")
    key: Path | None = Field(default=None, description="Its private key, PEM.")
    client_ca: Path | None = Field(
        default=None,
        description="Only clients with a certificate of this authority get in (mutual TLS).",
    )

    @model_validator(mode="after")
    def _belongs_together(self) -> TlsSettings:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together; one of them is missing")
        if self.client_ca is not None and self.cert is None:
            raise ValueError("client_ca needs cert and key of the server beside it")
        return self


class AuthSettings(_Group):
    """Who may send alerts and, off loopback, read. Any one of what is given lets a caller in."""

    bearer: tuple[SecretStr, ...] = Field(
        default=(), description="Tokens for `Authorization: Bearer …` (Falcosidekick)."
    )
    bearer_files: tuple[Path, ...] = Field(
        default=(), description="Files with such tokens, one per line; # begins a comment."
    )
    basic: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="User names and passwords for basic authentication (Falco: in the URL).",
    )
    secret_path: SecretStr | None = Field(
        default=None,
        description="A secret path segment: alerts go to /SECRET or /v1/alerts/SECRET.",
    )

    @model_validator(mode="before")
    @classmethod
    def _none_is_nothing(cls, value: object) -> object:
        return {} if value in ("none", None) else value

    @model_validator(mode="after")
    def _is_strong_enough(self) -> AuthSettings:
        for token in (*self.bearer, *self.basic.values()):
            if not token.get_secret_value():
                raise ValueError("an empty token or password would let everyone in")
        for user in self.basic:
            if ":" in user:
                raise ValueError(f"user name {user!r} contains a colon (RFC 7617)")
        if self.secret_path is not None and not re.fullmatch(
            r"[A-Za-z0-9._~-]{16,128}", self.secret_path.get_secret_value()
        ):
            raise ValueError("secret_path needs 16 to 128 letters, digits or any of . _ ~ -")
        return self

    @property
    def can_read(self) -> bool:
        """Somebody holds a credential that also works for reading."""
        return bool(self.bearer or self.bearer_files or self.basic)

    @property
    def is_none(self) -> bool:
        return not (self.can_read or self.secret_path)


class ClientRateSettings(_Group):
    """Alerts per client address: a token bucket; what is beyond it is answered 429."""

    per_second: float = Field(
        default=0.0, ge=0, description="Alerts per second and client in the long run; 0: no limit."
    )
    burst: int = Field(default=1000, ge=1, description="Alerts one client may send at once.")


class IngestSettings(_Group):
    """How alerts come in over HTTP."""

    listen: ListenAddress | None = Field(
        default=None,
        description="A listener of its own for alerts, ADDRESS:PORT; default: they come in at `listen`.",
    )
    tls: TlsSettings = Field(
        default_factory=TlsSettings, description="TLS of the alerts' own listener."
    )
    auth: AuthSettings = Field(
        default_factory=AuthSettings, description="Who may send alerts; `none`: anyone (loopback)."
    )
    max_body: Bytes = Field(
        default=1_048_576, gt=0, description="Longest alert; longer ones are answered 413."
    )
    in_flight: int = Field(
        default=1024, ge=1, description="Alerts being made durable at once; beyond it 429."
    )
    rate: ClientRateSettings = Field(
        default_factory=ClientRateSettings, description="Alerts per client address."
    )


class EventFile(_Group):
    """A file into which Falco writes JSON lines (`json_output: true`, `file_output`)."""

    path: Path = Field(description="The file; followed across rotation.")
    from_start: bool = Field(
        default=False,
        description="Where no position is remembered, begin at the start and not at the end.",
    )


class EventSettings(_Group):
    """Alerts from files and standard input."""

    files: tuple[EventFile, ...] = Field(default=(), description="Files of JSON lines to follow.")
    stdin: bool = Field(default=False, description="Read JSON lines from standard input.")
    max_line: Bytes = Field(
        default=1_048_576, gt=0, description="Longest line; longer ones are counted and skipped."
    )


class HeartbeatSettings(_Group):
    """Falco's own metrics events: how we know that alerts still reach us."""

    every: Seconds = Field(
        default=0.0,
        description="Falco's metrics.interval; 0: learned from the heartbeats that come in.",
    )
    grace: Seconds = Field(
        default=30.0, description="How late a heartbeat may be before it is a gap."
    )


class JournalSettings(_Group):
    """The durable list of accepted alerts."""

    max: Bytes = Field(
        default=1_000_000_000,
        gt=0,
        description="Disk space of alerts not yet worked off; beyond it new ones are answered 503.",
    )


class WebSettings(_Group):
    """What is shown over HTTP."""

    metrics_open: bool = Field(
        default=True, description="/metrics needs no credentials even off loopback."
    )


class SelectorSettings(_Group):
    """Which pods are meant, and how they are recorded; the first selector that fits decides."""

    namespace: str = Field(default="*", description="Kubernetes namespace, with * and ?.")
    labels: dict[str, str] = Field(
        default_factory=dict, description="Labels that the pod must have, all of them."
    )
    record: Mode = Field(default=Mode.FULL, description="off, headers or full.")
    weight: int = Field(
        default=1, ge=1, le=MAX_WEIGHT, description="Share of ring memory, compared with others."
    )


class RecordSettings(_Group):
    """Which pods are recorded, and how much of their packets."""

    default: Mode = Field(
        default=Mode.FULL,
        description="Pods that nothing else names: full or headers (opt-out), off (opt-in).",
    )
    selectors: tuple[SelectorSettings, ...] = Field(
        default=(), description="By namespace and label; the first that fits decides."
    )
    privacy: dict[str, Mode] = Field(
        default_factory=dict,
        description="The most that is ever recorded of a namespace (with * and ?): headers or off.",
    )
    annotations: bool = Field(
        default=True,
        description="Pods may say tripshark.dev/record: off, headers or full, within `privacy`.",
    )


class ContainerSettings(_Group):
    """What is asked of the container runtimes of this machine."""

    enabled: Literal["auto", "on", "off"] = Field(
        default="auto", description="auto: where the socket of a runtime is found."
    )
    sockets: tuple[Path, ...] = Field(
        default=(),
        description="Sockets of runtimes (CRI, Docker, Podman); empty: the usual ones are looked for.",
    )
    socket: Path | None = Field(
        default=None,
        description="Unix socket between scout and responder; default <data>/run/scout.sock.",
    )


class KubernetesSettings(_Group):
    """The Kubernetes API: names, owners, services, and captures beyond one node."""

    enabled: Literal["auto", "on", "off"] = Field(
        default="auto", description="auto: when running in a pod, or where a kubeconfig is given."
    )
    kubeconfig: Path | None = Field(
        default=None, description="A kubeconfig to use; default: the pod's service account."
    )
    node: str = Field(
        default="", description="Name of this node in the cluster; default: the machine's name."
    )
    captures: bool = Field(
        default=True, description="Take part in Capture resources, own ones and others'."
    )
    events: bool = Field(
        default=True, description="Tell of incidents as events of the pods they are about."
    )
    access: bool = Field(
        default=False,
        description="Readers prove who they are by Kubernetes token, and see what their rights allow.",
    )


class AnalystSettings(_Group):
    """The process that dissects packets."""

    socket: Path | None = Field(
        default=None,
        description="Unix socket between analyst and responder; default <data>/run/analyst.sock.",
    )


class StoreSettings(_Group):
    """Where sealed evidence is sent, beside this machine's own folder."""

    url: str = Field(
        default="",
        description="s3://BUCKET/PREFIX, gs://…, az://… or file:///…; empty: it stays on this machine.",
    )
    options: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="Options of the object store, such as aws_endpoint or aws_access_key_id.",
    )
    keep: bool = Field(
        default=True,
        description="Keep the local folder after it was sent, until retention removes it.",
    )
    cache: Bytes = Field(
        default=2_000_000_000,
        gt=0,
        description="Disk space for evidence fetched from the store for readers.",
    )


class HubSettings(_Group):
    """The fleet's catalogue."""

    database: SecretStr | None = Field(
        default=None,
        description="postgresql://USER:PASSWORD@HOST/NAME; default: SQLite in the data folder.",
    )
    every: Seconds = Field(
        default=5.0, gt=0, description="How often the store is looked through for new evidence."
    )
    presigned: Seconds = Field(
        default=0.0,
        le=7 * 86_400.0,
        description="Readers fetch evidence from the store itself, by an address valid this long; 0: through the hub.",
    )


class Settings(_Group):
    """Tripshark's settings as one frozen tree. Made by `load`."""

    listen: ListenAddress = Field(
        default=Listen("127.0.0.1", 2803), description="Where API, web page and alerts listen."
    )
    data: Path = Field(
        default=SYSTEM_DATA,
        description="Folder for evidence, journal, catalogue and sockets; for an ordinary user "
        "~/.local/state/tripshark where the default does not exist.",
    )
    rules: tuple[Path, ...] | None = Field(
        default=None, description="Rule files, or folders of them; default: the shipped rules."
    )
    user: str = Field(
        default="tripshark", description="User of the responder when started as root."
    )
    analyst_user: str = Field(
        default="tripshark-analyst", description="User of the analyst when started as root."
    )
    recorder: RecorderSettings = Field(default_factory=RecorderSettings)
    targets: TargetSettings = Field(default_factory=TargetSettings)
    record: RecordSettings = Field(default_factory=RecordSettings)
    analyst: AnalystSettings = Field(default_factory=AnalystSettings)
    containers: ContainerSettings = Field(default_factory=ContainerSettings)
    kubernetes: KubernetesSettings = Field(default_factory=KubernetesSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    hub: HubSettings = Field(default_factory=HubSettings)
    capture: CaptureSettings = Field(default_factory=CaptureSettings)
    bounds: BoundSettings = Field(default_factory=BoundSettings)
    tls: TlsSettings = Field(default_factory=TlsSettings)
    ingest: IngestSettings = Field(default_factory=IngestSettings)
    events: EventSettings = Field(default_factory=EventSettings)
    heartbeat: HeartbeatSettings = Field(default_factory=HeartbeatSettings)
    journal: JournalSettings = Field(default_factory=JournalSettings)
    web: WebSettings = Field(default_factory=WebSettings)

    _sources: dict[tuple[str, ...], str] = PrivateAttr(default_factory=dict)
    _warnings: tuple[str, ...] = PrivateAttr(default=())

    @property
    def sources(self) -> Mapping[tuple[str, ...], str]:
        """Where values came from, by path in the tree; what is not in it is a default."""
        return self._sources

    @property
    def config_file(self) -> str:
        """Path of the file that was read, empty when there was none."""
        return self._sources.get((), "")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What works but should not stay so, each a sentence with its remedy."""
        return self._warnings

    @property
    def rule_paths(self) -> tuple[Path, ...]:
        """Files and folders of rules, the shipped ones where none are given."""
        return (shipped_rules(),) if self.rules is None else self.rules

    @property
    def recorder_socket(self) -> Path:
        return self.recorder.socket or self.data / "run" / "recorder.sock"

    @property
    def analyst_socket(self) -> Path:
        return self.analyst.socket or self.data / "run" / "analyst.sock"

    @property
    def scout_socket(self) -> Path:
        return self.containers.socket or self.data / "run" / "scout.sock"

    @property
    def api_socket(self) -> Path:
        """Where commands on this machine reach the service, without credentials."""
        return self.data / "run" / "api.sock"

    @property
    def alert_listen(self) -> Listen:
        """Where alerts come in."""
        return self.ingest.listen or self.listen

    @property
    def alert_tls(self) -> TlsSettings:
        """TLS of the listener where alerts come in."""
        return self.ingest.tls if self.ingest.listen else self.tls

    def bearer_tokens(self) -> tuple[str, ...]:
        """All bearer tokens, those in files read now. Raises `BadInput` for a file that cannot be read."""
        tokens = [token.get_secret_value() for token in self.ingest.auth.bearer]
        for path in self.ingest.auth.bearer_files:
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise BadInput(
                    f"cannot read the token file: {_reason(error)}",
                    where=str(path),
                    hint="ingest.auth.bearer_files names it",
                ) from error
            found = [line.strip() for line in lines if line.strip() and line.strip()[0] != "#"]
            if not found:
                raise BadInput(
                    "the token file holds no token", where=str(path), hint="one token per line"
                )
            tokens += found
        return tuple(tokens)


def shipped_rules() -> Path:
    """The folder of shipped rules: of the installed package, or of the checkout."""
    package = Path(str(files("tripshark")))
    installed = package / "_shipped" / "rules"
    return installed if installed.is_dir() else package.parents[1] / "rules"


# ----------------------------------------------------------------------------------------------- loading


def load(
    config: Path | None,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read every source and return the settings, or raise one `BadInput` that lists every problem.

    `overrides` is what the command line said, by dotted name (`{"recorder.total": "1GB"}`); None values are ignored.
    Problems stand one per line in the message, each with file:line, variable or option, and the nearest known name.
    """
    environ = os.environ if environ is None else environ
    sources: dict[tuple[str, ...], str] = {}
    problems: list[str] = []
    tree: dict[str, object] = {}

    path = config or (Path(environ[PREFIX + "CONFIG"]) if environ.get(PREFIX + "CONFIG") else None)
    if path is None and DEFAULT_CONFIG.exists():
        path = DEFAULT_CONFIG
    if path is not None:
        sources[()] = str(path)
        _merge(tree, _read_file(path, sources, problems))
    _merge(tree, _read_environment(environ, sources, problems))
    for name, value in (overrides or {}).items():
        if value is not None:
            keys = tuple(name.split("."))
            _put(tree, keys, value)
            _own(sources, keys, f"command line ({name})")
    if "data" not in tree and os.geteuid() != 0 and not SYSTEM_DATA.exists():
        state = environ.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
        tree["data"] = str(Path(state) / "tripshark")
        sources["data",] = "default of an ordinary user"

    settings = Settings()
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        problems += [
            _problem(each["loc"], each["msg"], each["type"], sources) for each in error.errors()
        ]
    else:
        problems += _refusals(settings, sources)
    if problems:
        raise BadInput(
            "\n".join(problems),
            where=sources.get((), "") or "settings",
            hint="`tripshark settings` shows every setting with its meaning",
        )
    settings._sources = sources  # noqa: SLF001  # a frozen model's private part, filled by its maker
    settings._warnings = tuple(_concerns(settings))  # noqa: SLF001  # see above
    return settings


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8 text"


def _read_file(
    path: Path, sources: dict[tuple[str, ...], str], problems: list[str]
) -> dict[str, object]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"cannot read the configuration: {_reason(error)}",
            where=str(path),
            hint="name another file with --config or TRIPSHARK_CONFIG",
        ) from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise BadInput(f"not YAML: {reason}", where=where) from error
    if root is None:
        return {}
    value = _build(root, (), path, sources, problems, frozenset())
    if not isinstance(value, dict):
        raise BadInput("the configuration is not a map of settings", where=f"{path}:1")
    return value


def _build(
    node: yaml.Node,
    keys: tuple[str, ...],
    path: Path,
    sources: dict[tuple[str, ...], str],
    problems: list[str],
    above: frozenset[int],
) -> object:
    """A YAML node as plain values, remembering the line of every value."""
    where = f"{path}:{node.start_mark.line + 1}"
    if keys:
        sources[keys] = where
    if id(node) in above:  # `&a [*a]`: an alias inside itself has no end
        problems.append(f"{where}: an alias refers to itself")
        return None
    above |= {id(node)}
    if isinstance(node, yaml.MappingNode):
        result: dict[str, object] = {}
        for key, child in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            if name in result:
                problems.append(f"{path}:{key.start_mark.line + 1}: {name} is given twice")
            result[name] = _build(child, (*keys, name), path, sources, problems, above)
            sources[*keys, name] = f"{path}:{key.start_mark.line + 1}"
        return result
    if isinstance(node, yaml.SequenceNode):
        return [
            _build(child, (*keys, str(index)), path, sources, problems, above)
            for index, child in enumerate(node.value)
        ]
    try:
        return cast(object, yaml.SafeLoader("").construct_object(node))
    except (yaml.YAMLError, ValueError, OverflowError):
        problems.append(f"{where}: {str(node.value)[:80]!r} is not a value that can be read")
        return None


# What Kubernetes puts into every container for a Service whose name begins with `tripshark`.
_OF_A_SERVICE = re.compile(r".*_(SERVICE_(HOST|PORT(_.*)?)|PORT(_[0-9]+_(TCP|UDP|SCTP)(_.*)?)?)")


def _read_environment(
    environ: Mapping[str, str], sources: dict[tuple[str, ...], str], problems: list[str]
) -> dict[str, object]:
    tree: dict[str, object] = {}
    fields = {variable(each.keys): each for each in _walk(Settings)}
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name == PREFIX + "CONFIG":
            continue
        field = fields.get(name)
        if field is None:
            parent = next(
                (f for v, f in fields.items() if f.is_map and name.startswith(v + "__")), None
            )
            if parent is not None:  # TRIPSHARK_INGEST__AUTH__BASIC__falco=…
                keys = (*parent.keys, name[len(variable(parent.keys)) + 2 :])
                _put(tree, keys, environ[name])
                _own(sources, keys, f"environment ({name})")
            elif not _OF_A_SERVICE.fullmatch(name):
                problems.append(f"environment ({name}): no such setting{_near(name, fields)}")
            continue
        text = environ[name]
        value: object = text
        if (field.is_list or field.is_map) and text.lstrip()[:1] in ("[", "{"):
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError:
                problems.append(f"environment ({name}): neither YAML nor a list a,b,c")
                continue
        elif field.is_list:
            value = [part.strip() for part in text.split(",") if part.strip()]
        _put(tree, field.keys, value)
        _own(sources, field.keys, f"environment ({name})")
    return tree


def variable(keys: Sequence[str]) -> str:
    """The environment variable of a setting: `TRIPSHARK_RECORDER__PER_TARGET`."""
    return PREFIX + "__".join(keys).upper()


def _own(sources: dict[tuple[str, ...], str], keys: tuple[str, ...], source: str) -> None:
    """This source now says all there is at and below `keys`."""
    for known in [each for each in sources if each[: len(keys)] == keys]:
        del sources[known]
    sources[keys] = source


def _put(tree: dict[str, object], keys: tuple[str, ...], value: object) -> None:
    for key in keys[:-1]:
        below = tree.get(key)
        if not isinstance(below, dict):
            below = tree[key] = {}
        tree = below
    tree[keys[-1]] = value


def _merge(into: dict[str, object], other: Mapping[str, object]) -> None:
    for key, value in other.items():
        mine = into.get(key)
        if isinstance(value, dict):
            if not isinstance(mine, dict):
                mine = into[key] = {}
            _merge(mine, value)
        elif value is None:
            continue  # `recorder:` with everything below it commented out
        else:
            into[key] = value


def _problem(
    loc: tuple[int | str, ...], message: str, kind: str, sources: Mapping[tuple[str, ...], str]
) -> str:
    keys = tuple(str(each) for each in loc)
    where = ""
    for length in range(len(keys), 0, -1):
        if keys[:length] in sources:
            where = sources[keys[:length]]
            break
    name = ".".join(keys) or "settings"
    message = message.removeprefix("Value error, ")
    if kind == "extra_forbidden":
        known = {".".join(each.keys): each for each in _walk(Settings, groups=True)}
        message = "no such setting" + _near(_without_index(name), known)
    elif kind == "string_type":
        message += "; put it in quotes"
    return f"{where}: {name}: {message}" if where else f"{name}: {message}"


def _without_index(name: str) -> str:
    return re.sub(r"\.[0-9]+(?=\.|$)", "[]", name)


def _near(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.75)
    if not close:  # the right word in the wrong place
        last = re.split(r"\.|__", name)[-1]
        tails = [each for each in known if re.split(r"\.|__", each)[-1] == last]
        close = tails[:1]
    return f"; did you mean {close[0]}?" if close else ""


def _refusals(settings: Settings, sources: Mapping[tuple[str, ...], str]) -> list[str]:
    """Combinations that would be unsafe, each a sentence."""
    auth = settings.ingest.auth
    problems = []
    at = settings.alert_listen
    if not at.is_loopback and auth.is_none and settings.alert_tls.client_ca is None:
        name = "ingest.listen" if settings.ingest.listen else "listen"
        where = sources.get(tuple(name.split(".")), "default")
        problems.append(
            f"{where}: {name}: alerts would be taken from anyone who can reach {at}; set one of "
            "ingest.auth.bearer_files, ingest.auth.basic, ingest.auth.secret_path or "
            f"{'ingest.tls' if settings.ingest.listen else 'tls'}.client_ca, or listen on 127.0.0.1"
        )
    tls = settings.ingest.tls
    if settings.ingest.listen is None and (tls.cert or tls.client_ca):
        problems.append(
            f"{sources.get(('ingest', 'tls'), 'ingest.tls')}: ingest.tls belongs to ingest.listen, "
            "which is not set; use tls for the listener of both"
        )
    return problems


def _concerns(settings: Settings) -> Iterator[str]:
    auth = settings.ingest.auth
    nobody = not auth.can_read and settings.tls.client_ca is None
    if not settings.listen.is_loopback and nobody and not settings.kubernetes.access:
        yield (
            f"nobody can read at {settings.listen}: reading off loopback needs a bearer token, a "
            "user or a client certificate; set ingest.auth.bearer_files"
        )
    secret = list(auth.bearer_files)
    if settings.config_file and (auth.bearer or auth.basic or auth.secret_path):
        secret.append(Path(settings.config_file))
    secret += [key for key in (settings.tls.key, settings.ingest.tls.key) if key is not None]
    for path in secret:
        try:
            mode = path.stat().st_mode
        except OSError:
            continue  # whoever opens it says what is wrong
        if mode & stat.S_IROTH:
            yield f"every user of this machine can read the secrets in {path}; chmod o-r {path}"
    if settings.rules is not None:
        for path in settings.rules:
            if not path.exists():
                yield f"there are no rules at {path}; see the setting rules"


# ------------------------------------------------------------------------------------------- explaining


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """One setting as people see it; every value is text, secrets are masked."""

    name: str  # "recorder.per_target"; "targets.static[].netns" within a list
    variable: str  # TRIPSHARK_RECORDER__PER_TARGET; empty within a list
    meaning: str
    unit: str
    default: str
    value: str
    source: (
        str  # "default", "/etc/tripshark/tripshark.yaml:3", "environment (…)", "command line (…)"
    )


@dataclass(frozen=True, slots=True)
class _Field:
    keys: tuple[str, ...]
    meaning: str
    unit: str
    default: object
    is_list: bool
    is_map: bool
    inner: type[_Group] | None


def _bare(annotation: object) -> tuple[object, tuple[object, ...]]:
    """The type without `| None` and `Annotated`, and what `Annotated` said."""
    said: tuple[object, ...] = ()
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            said += tuple(more)
        elif get_origin(annotation) in (Union, UnionType):
            annotation = next(each for each in get_args(annotation) if each is not NoneType)
        else:
            return annotation, said


def _walk(
    model: type[_Group], above: tuple[str, ...] = (), *, groups: bool = False
) -> Iterator[_Field]:
    for name, field in model.model_fields.items():
        kind, said = _bare(field.annotation)
        keys = (*above, name)
        unit = next((each.name for each in (*said, *field.metadata) if isinstance(each, Unit)), "")
        is_list, is_map = get_origin(kind) is tuple, get_origin(kind) is dict
        inner = get_args(kind)[0] if is_list else kind
        inner = inner if isinstance(inner, type) and issubclass(inner, _Group) else None
        if inner is None or is_list or groups:
            yield _Field(
                keys=keys,
                meaning=field.description or "",
                unit=unit or _plain_unit(kind, is_list=is_list, is_map=is_map),
                default=field.get_default(call_default_factory=True)
                if not field.is_required()
                else "required",
                is_list=is_list,
                is_map=is_map,
                inner=inner,
            )
        if inner is not None and (not is_list or groups):
            below = (*above, name + "[]") if is_list else keys
            yield from _walk(inner, below, groups=groups)


def _plain_unit(kind: object, *, is_list: bool, is_map: bool) -> str:
    if is_list:
        return "list"
    if is_map:
        return "map"
    return {bool: "yes or no", Path: "path", int: "number", float: "number"}.get(
        cast("type[Any]", kind), "text"
    )


def explain(settings: Settings) -> list[Explained]:
    """Every setting with meaning, unit, default, value in force and source, in the order of the tree."""
    result = []
    for field in _walk(Settings):
        value: object = settings
        for key in field.keys:
            value = getattr(value, key)
        source = "default"
        for known, said in settings.sources.items():
            if known and (
                field.keys[: len(known)] == known or known[: len(field.keys)] == field.keys
            ):
                exact = field.keys == known
                # A group's own line says nothing about a field which it does not mention.
                if exact or len(known) > len(field.keys):
                    source = said if exact or source == "default" else source
        result.append(
            Explained(
                name=".".join(field.keys),
                variable=variable(field.keys),
                meaning=field.meaning,
                unit=field.unit,
                default=show(field.default, field.unit),
                value=show(value, field.unit),
                source=source,
            )
        )
    return result


def show(value: object, unit: str) -> str:
    """A value as a person would write it; secrets are masked."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case SecretStr():
            return "********"
        case int() if unit.startswith("bytes per"):
            return {SNAPLEN_FULL: "full", SNAPLEN_HEADERS: "headers"}.get(value, str(value))
        case int() if unit == "bytes":
            return _in_units(
                value, {k.upper().replace("IB", "iB"): v for k, v in SIZES.items() if len(k) > 1}
            )
        case int() if unit == "count":
            return _in_units(value, {"m": 10**6, "k": 10**3})
        case int() | float() if unit == "duration":
            return (
                _in_units(value, {k: v for k, v in SECONDS.items() if k in "wdhms" and k}) or "0s"
            )
        case tuple() if all(isinstance(each, SecretStr) for each in value):
            return f"({len(value)} secret)" if value else "[]"
        case tuple():
            return "[" + ", ".join(show(each, "") for each in value) + "]"
        case dict():
            return "{" + ", ".join(f"{k}: {show(v, '')}" for k, v in value.items()) + "}"
        case BaseModel():
            given = {k: v for k, v in value if v not in ("", None, (), {})}
            return show(given, "")
        case _:
            return str(value)


def _in_units(value: float, units: Mapping[str, float]) -> str:
    for name, factor in sorted(units.items(), key=lambda each: -each[1]):
        if value and value >= factor and (value / factor) == int(value / factor):
            return f"{int(value / factor)}{name}"
    return f"{value:g}" if value != int(value) else str(int(value))


def reference() -> list[Explained]:
    """Every setting with its default, those within lists too: what `docs/settings.md` is made of."""
    inside = [
        Explained(
            name=".".join((*field.keys[:-1], field.keys[-1] + "[]", below.keys[0])),
            variable="",
            meaning=below.meaning,
            unit=below.unit,
            default=show(below.default, below.unit),
            value="",
            source="",
        )
        for field in _walk(Settings)
        if field.is_list and field.inner
        for below in _walk(field.inner)
    ]
    result = []
    for each in explain(Settings()):
        result.append(each)
        result += [one for one in inside if one.name.startswith(each.name + "[]")]
    return result


_HOW_TO_WRITE = (
    (
        "One YAML file (`--config FILE`, else `TRIPSHARK_CONFIG`, else `/etc/tripshark/tripshark.yaml`), every key "
        "optional; [an example](../examples/tripshark.yaml). An environment variable is stronger than the file, the "
        "command line stronger than both. `tripshark settings` shows what is in force and where it came from."
    ),
    "",
    (
        "Sizes: `16MB` (10⁶), `16MiB` (2²⁰). Durations: `30s`, `1m30s`, `7d`. Counts: `200k`. Lists in a variable: "
        "`a,b` or YAML. A dot in a name is a level of the file and `__` in the variable: `recorder.total` is "
        "`TRIPSHARK_RECORDER__TOTAL`."
    ),
)


def as_markdown() -> str:
    """`docs/settings.md`."""
    lines = [
        "# Settings",
        "",
        "Written from `src/tripshark/settings.py` by `python -m tripshark.settings docs/settings.md`.",
        "",
        *_HOW_TO_WRITE,
    ]
    group = None
    for each in reference():
        head = each.name.partition(".")[0] if "." in each.name else ""
        if head != group:
            group = head
            said = _said_of(head) if head else "What every program needs."
            lines += ["", f"## {head or 'General'}", "", said, ""]
            lines += ["| setting | meaning | unit | default |", "|---|---|---|---|"]
        default = f"`{each.default}`" if each.default not in ("", "required") else each.default
        lines.append(f"| `{each.name}` | {each.meaning} | {each.unit} | {default} |")
    return "\n".join(lines) + "\n"


def _said_of(group: str) -> str:
    kind, _ = _bare(Settings.model_fields[group].annotation)
    return (cast("type[_Group]", kind).__doc__ or "").partition("\n")[0]


def as_yaml() -> str:
    """`examples/tripshark.yaml`: every setting commented out (`# key`), its meaning above it (`## text`)."""
    lines = [
        "## Tripshark's settings, all at their defaults: take the `# ` away from what you change (and from the groups",
        "## above it). Meanings: docs/settings.md. What is in force, and why: tripshark settings",
    ]
    seen: set[tuple[str, ...]] = set()
    for field in _walk(Settings):
        for depth in range(1, len(field.keys)):
            group = field.keys[:depth]
            if group not in seen:
                seen.add(group)
                lines += ([""] if depth == 1 else []) + [f"# {'  ' * (depth - 1)}{group[-1]}:"]
        indent = "  " * (len(field.keys) - 1)
        lines += ([""] if not indent else []) + [f"##{indent} {field.meaning}"]
        if field.inner is not None:
            lines += [
                f"##{indent}   {each.keys[0]}: {each.meaning}" for each in _walk(field.inner)
            ]
        lines.append(f"# {indent}{field.keys[-1]}: {_yaml_of(field)}")
    return "\n".join(lines) + "\n"


def _yaml_of(field: _Field) -> str:
    shown = show(field.default, field.unit)
    if field.default is None:
        return "null"
    return f'"{shown}"' if field.unit == "text" or ":" in shown else shown


if __name__ == "__main__":
    import sys

    for name in sys.argv[1:]:
        Path(name).write_text(as_yaml() if name.endswith(".yaml") else as_markdown(), "utf-8")
