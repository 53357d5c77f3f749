"""Which settings there are: one frozen tree, each with its meaning and default."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import Field, PrivateAttr, SecretStr, model_validator

from tripshark.errors import BadInput
from tripshark.formats.ruledocuments import SNAPLEN_FULL
from tripshark.model.recording import MAX_WEIGHT, Mode
from tripshark.settings.group import Group
from tripshark.settings.signin import SigninSettings
from tripshark.settings.words import Bytes, Count, Listen, ListenAddress, Seconds, Snaplen

SYSTEM_DATA = Path("/var/lib/tripshark")


class RecorderSettings(Group):
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
        description="Memory for histories of the dead and frozen copies together, at least `per_target`; oldest out first.",
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

    @model_validator(mode="after")
    def _freezes_what_it_records(self) -> RecorderSettings:
        largest = min(self.per_target, self.total)
        if self.copies < largest:
            raise ValueError(
                f"copies must have room for one whole history: at least {largest} bytes, as per_target"
            )
        return self


class StaticTarget(Group):
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


class TargetSettings(Group):
    """Who runs where."""

    static: tuple[StaticTarget, ...] = Field(
        default=(), description="Identities of namespaces on machines without Kubernetes."
    )


class LimitSettings(Group):
    """Where a single capture stops, whatever else happens."""

    bytes: Bytes = Field(default=50_000_000, gt=0, description="Bytes of packets written.")
    packets: Count = Field(default=200_000, gt=0, description="Packets written.")
    extend: Seconds = Field(
        default=120.0, description="By how much repeated alerts may lengthen `after` in all."
    )


class CaptureSettings(Group):
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


class RateSettings(Group):
    """A token bucket per rule and target: `burst` at once, then one per `refill`."""

    burst: int = Field(default=10, ge=1, description="Captures that may start at once.")
    refill: Seconds = Field(
        default=60.0, description="Time until one more capture may start; 0: no limit."
    )


class BoundSettings(Group):
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


class TlsSettings(Group):
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


class AuthSettings(Group):
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


class ClientRateSettings(Group):
    """Alerts per client address: a token bucket; what is beyond it is answered 429."""

    per_second: float = Field(
        default=0.0, ge=0, description="Alerts per second and client in the long run; 0: no limit."
    )
    burst: int = Field(default=1000, ge=1, description="Alerts one client may send at once.")


class IngestSettings(Group):
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


class EventFile(Group):
    """A file into which Falco writes JSON lines (`json_output: true`, `file_output`)."""

    path: Path = Field(description="The file; followed across rotation.")
    from_start: bool = Field(
        default=False,
        description="Where no position is remembered, begin at the start and not at the end.",
    )


class EventSettings(Group):
    """Alerts from files and standard input."""

    files: tuple[EventFile, ...] = Field(default=(), description="Files of JSON lines to follow.")
    stdin: bool = Field(default=False, description="Read JSON lines from standard input.")
    max_line: Bytes = Field(
        default=1_048_576, gt=0, description="Longest line; longer ones are counted and skipped."
    )


class HeartbeatSettings(Group):
    """Falco's own metrics events: how we know that alerts still reach us."""

    every: Seconds = Field(
        default=0.0,
        description="Falco's metrics.interval; 0: learned from the heartbeats that come in.",
    )
    grace: Seconds = Field(
        default=30.0, description="How late a heartbeat may be before it is a gap."
    )


class JournalSettings(Group):
    """The durable list of accepted alerts."""

    max: Bytes = Field(
        default=1_000_000_000,
        gt=0,
        description="Disk space of alerts not yet worked off; beyond it new ones are answered 503.",
    )


class WebSettings(Group):
    """What is shown over HTTP."""

    metrics_open: bool = Field(
        default=True, description="/metrics needs no credentials even off loopback."
    )
    cleartext: bool = Field(
        default=False,
        description="Off loopback answer without TLS: what lies between (a pod network, a mesh) is trusted with tokens and evidence.",
    )


class SelectorSettings(Group):
    """Which pods are meant, and how they are recorded; the first selector that fits decides."""

    namespace: str = Field(default="*", description="Kubernetes namespace, with * and ?.")
    labels: dict[str, str] = Field(
        default_factory=dict, description="Labels that the pod must have, all of them."
    )
    record: Mode = Field(default=Mode.FULL, description="off, headers or full.")
    weight: int = Field(
        default=1, ge=1, le=MAX_WEIGHT, description="Share of ring memory, compared with others."
    )


class RecordSettings(Group):
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


class ContainerSettings(Group):
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


class KubernetesSettings(Group):
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
    audiences: tuple[str, ...] = Field(
        default=(),
        description="What readers' tokens must be made for (kubectl create token --audience); "
        "none: for the API server itself.",
    )


class AnalystSettings(Group):
    """The process that dissects packets."""

    socket: Path | None = Field(
        default=None,
        description="Unix socket between analyst and responder; default <data>/run/analyst.sock.",
    )


class ReadingSettings(Group):
    """Looking at packets in the browser."""

    whole: Bytes = Field(
        default=50_000_000,
        gt=0,
        description="A larger capture file is cut to a window around the alert before it is opened.",
    )
    window: Bytes = Field(
        default=20_000_000, gt=0, description="How much of a larger file is looked at at a time."
    )
    sessions: Count = Field(
        default=4, gt=0, le=16, description="Files, or windows of files, that are open at once."
    )
    idle: Seconds = Field(
        default=300.0,
        ge=5.0,
        le=3600.0,
        description="A file that nobody looks at for so long is closed.",
    )
    memory: Bytes = Field(
        default=2_000_000_000,
        ge=500_000_000,
        description="Address space of one dissector; 200 MB of it are its own, whatever the file.",
    )


class StoreSettings(Group):
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


class HubSettings(Group):
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


class Settings(Group):
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
    indicators: tuple[Path, ...] = Field(
        default=(),
        description="Lists of indicators (plain text, STIX 2.1, MISP), or folders of them; read again when they change.",
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
    reading: ReadingSettings = Field(default_factory=ReadingSettings)
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
    signin: SigninSettings = Field(default_factory=SigninSettings)

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
                    f"cannot read the token file: {reason_of(error)}",
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


def reason_of(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8 text"
