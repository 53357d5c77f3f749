"""Settings: every source and its place in the order, every problem at once, and documents that stay true."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tripshark.errors import BadInput
from tripshark.model.units import bytes_of, count_of, ns_of, seconds_of
from tripshark.settings import (
    Listen,
    Settings,
    as_markdown,
    as_yaml,
    explain,
    load,
    loading,
    reference,
    shipped_rules,
    variable,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _no_file_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loading, "DEFAULT_CONFIG", tmp_path / "etc" / "tripshark.yaml")


def write(folder: Path, text: str) -> Path:
    path = folder / "tripshark.yaml"
    path.write_text(text)
    return path


def problems(config: Path | None = None, **sources: object) -> list[str]:
    with pytest.raises(BadInput) as caught:
        load(config, sources.get("overrides", {}), sources.get("environ", {}))
    assert caught.value.hint
    return caught.value.message.splitlines()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("16MB", 16_000_000), ("16 MiB", 1 << 24), ("1.5k", 1500), ("0", 0), (7, 7), ("1_000", 1000)],
)
def test_sizes_are_read_as_written(text: object, expected: int) -> None:
    """Decimal units are powers of ten, binary ones of two."""
    assert bytes_of(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30s", 30), ("1m30s", 90), ("10m", 600), ("7d", 604_800), ("250ms", 0.25), (2.5, 2.5)],
)
def test_durations_are_read_as_written(text: object, expected: float) -> None:
    """Parts add up; a plain number is seconds."""
    assert seconds_of(text) == pytest.approx(expected)
    assert ns_of(text) == round(expected * 1e9)


def test_counts_are_read_as_written() -> None:
    """200k is two hundred thousand."""
    assert (count_of("200k"), count_of("1m"), count_of(5)) == (200_000, 1_000_000, 5)


@pytest.mark.parametrize(
    "text", ["", "x", "10 parsecs", "10s!", "-5s", True, None, [], float("inf")]
)
def test_what_is_no_number_with_a_unit_is_refused_with_an_example(text: object) -> None:
    """The message shows how to write it."""
    for read, example in ((bytes_of, "16MB"), (seconds_of, "30s"), (count_of, "200k")):
        with pytest.raises(ValueError, match=example):
            read(text)


@given(text=st.text(max_size=20))
def test_any_text_is_a_number_or_a_value_error(text: str) -> None:
    """Nothing else comes out of the readers."""
    for read in (bytes_of, seconds_of, count_of):
        try:
            assert read(text) >= 0
        except ValueError:
            continue


def test_defaults_hold_without_any_source() -> None:
    """What interfaces promise: loopback, port 2803, rings of 16 MB."""
    settings = load(None, {}, {})
    assert settings.listen == Listen("127.0.0.1", 2803)
    assert settings.recorder.per_target == 16_000_000
    assert settings.rule_paths == (shipped_rules(),)
    assert settings.recorder_socket == settings.data / "run" / "recorder.sock"
    assert settings.analyst_socket.parent == settings.recorder_socket.parent
    assert settings.config_file == ""
    assert settings.warnings == ()


def test_later_sources_win_and_say_so(tmp_path: Path) -> None:
    """File, environment, command line: each overrides the one before, and `explain` names the winner."""
    path = write(
        tmp_path,
        "listen: 127.0.0.1:1\nrecorder:\n  total: 1GB\n  per_target: 1MB\n  tombstone: 1m\n",
    )
    environ = {"TRIPSHARK_RECORDER__PER_TARGET": "2MB", "TRIPSHARK_RECORDER__TOTAL": "2GB"}
    settings = load(path, {"recorder.total": "3GB", "data": None}, environ)
    assert settings.recorder.tombstone == 60
    assert settings.recorder.per_target == 2_000_000
    assert settings.recorder.total == 3_000_000_000
    told = {each.name: each for each in explain(settings)}
    assert told["listen"].source == f"{path}:1"
    assert told["recorder.tombstone"].source == f"{path}:5"
    assert told["recorder.per_target"].source == "environment (TRIPSHARK_RECORDER__PER_TARGET)"
    assert told["recorder.total"].source == "command line (recorder.total)"
    assert told["recorder.copies"].source == "default"
    assert told["recorder.total"].value == "3GB"
    assert settings.config_file == str(path)


def test_the_file_is_found_by_option_variable_or_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--config before TRIPSHARK_CONFIG before /etc; a named file must be there."""
    path = write(tmp_path, "data: /srv/one\n")
    assert load(None, {}, {"TRIPSHARK_CONFIG": str(path)}).data == Path("/srv/one")
    monkeypatch.setattr(loading, "DEFAULT_CONFIG", path)
    assert load(None, {}, {}).data == Path("/srv/one")
    with pytest.raises(BadInput) as caught:
        load(tmp_path / "none.yaml", {}, {})
    assert "none.yaml" in caught.value.where


def test_all_problems_come_at_once_with_line_and_nearest_name(tmp_path: Path) -> None:
    """Misspelt, misplaced, ill-formed, doubled: each with its line and a suggestion."""
    path = write(
        tmp_path,
        """listen: nowhere
recorder: {totl: 1GB, tombstone: soon}
per_target: 1MB
targets:
  static:
    - netns: shop0
      labels: {version: 1.10}
    - {namespac: payments, netns: x}
    - {pod: a}
    - {netns: a, pid: 4}
data: /a
data: /b
web: {metrics_open: maybe}
""",
    )
    found = problems(
        path,
        environ={"TRIPSHARK_LISTN": "x", "TRIPSHARK_RECORDER__SNAPLEN": "13"},
        overrides={"capture.after": "never"},
    )
    expected = [
        f"{path}:1: listen:",
        f"{path}:2: recorder.totl: no such setting; did you mean recorder.total?",
        f"{path}:2: recorder.tombstone:",
        f"{path}:3: per_target: no such setting; did you mean recorder.per_target?",
        f"{path}:7: targets.static.0.labels.version:",
        f"{path}:8: targets.static.1.namespac: no such setting; did you mean targets.static[].namespace?",
        f"{path}:9: targets.static.2: which namespace is meant?",
        f"{path}:10: targets.static.3: netns and pid are both given",
        f"{path}:12: data is given twice",
        f"{path}:13: web.metrics_open:",
        "environment (TRIPSHARK_LISTN): no such setting; did you mean TRIPSHARK_LISTEN?",
        "environment (TRIPSHARK_RECORDER__SNAPLEN): recorder.snaplen:",
        "command line (capture.after): capture.after:",
    ]
    for each in expected:
        assert any(line.startswith(each) for line in found), (each, found)
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [", 1),
        ("a: b: c", 1),
        ("- 1", 1),
        ("a: &x [*x]", 1),
        ("\ta: 1", 1),
        ("data: 2026-99-99", 1),
    ],
)
def test_what_is_not_yaml_says_where(tmp_path: Path, text: str, line: int) -> None:
    """Broken YAML, a list at the top, an alias without end, an impossible date: one error each."""
    path = write(tmp_path, text)
    with pytest.raises(BadInput) as caught:
        load(path, {}, {})
    assert f"{path}:{line}" in caught.value.where + caught.value.message


@given(content=st.binary(max_size=60))
def test_any_file_loads_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Whatever bytes a file has: settings or the one documented error."""
    path = tmp_path_factory.mktemp("s") / "x.yaml"
    path.write_bytes(content)
    try:
        load(path, {}, {})
    except BadInput as error:
        assert error.message  # noqa: PT017  # both outcomes are right, this one has a shape


def test_an_empty_file_or_group_changes_nothing(tmp_path: Path) -> None:
    """A file with everything commented out is a file of defaults."""
    for text in ("", "# nothing\n", "recorder:\n", "targets: {static: }\nrules:\n"):
        path = write(tmp_path, text)
        assert load(path, {}, {}).model_dump() == load(None, {}, {}).model_dump()


def test_lists_and_maps_come_from_the_environment_too() -> None:
    """a,b,c or YAML; single keys of a map by name; what Kubernetes injects for a Service is passed over."""
    settings = load(
        None,
        {},
        {
            "TRIPSHARK_RULES": "/a, /b",
            "TRIPSHARK_TARGETS__STATIC": "[{netns: shop0, namespace: p, pod: c, labels: {a: b}}]",
            "TRIPSHARK_INGEST__AUTH__BASIC__falco": "pass,word",
            "TRIPSHARK_EVENTS__STDIN": "true",
            "TRIPSHARK_PORT": "tcp://10.0.0.1:2803",
            "TRIPSHARK_SERVICE_HOST": "10.0.0.1",
            "TRIPSHARK_PORT_2803_TCP_ADDR": "10.0.0.1",
            "TRIPSHARK_HUB_SERVICE_PORT_HTTP": "1",
        },
    )
    assert settings.rules == (Path("/a"), Path("/b"))
    assert settings.targets.static[0].labels == {"a": "b"}
    assert settings.ingest.auth.basic["falco"].get_secret_value() == "pass,word"
    assert settings.events.stdin
    assert problems(environ={"TRIPSHARK_TARGETS__STATIC": "[{"})


def test_secrets_are_masked_wherever_settings_are_shown(tmp_path: Path) -> None:
    """Neither explain nor repr tells a token, password or secret path."""
    path = write(
        tmp_path,
        "ingest:\n  auth:\n    bearer: [tok-aaaa]\n    basic: {falco: pw-bbbb}\n"
        "    secret_path: sp-cccc-0123456789\n",
    )
    path.chmod(0o644)
    settings = load(path, {}, {})
    shown = repr(settings) + "".join(f"{each.value}{each.default}" for each in explain(settings))
    for secret in ("tok-aaaa", "pw-bbbb", "sp-cccc"):
        assert secret not in shown
    assert "(1 secret)" in shown
    assert settings.bearer_tokens() == ("tok-aaaa",)
    assert "chmod" in settings.warnings[0]
    path.chmod(0o640)
    assert load(path, {}, {}).warnings == ()


def test_tokens_come_from_files(tmp_path: Path) -> None:
    """One per line, # for comments; a file that is missing or empty is an error, a readable one a warning."""
    token = tmp_path / "token"
    token.write_text("# Falcosidekick\n one \n\ntwo\n")
    token.chmod(0o600)
    settings = load(None, {"ingest.auth.bearer_files": [str(token)]}, {})
    assert settings.bearer_tokens() == ("one", "two")
    token.write_text("# nothing\n")
    with pytest.raises(BadInput, match="no token"):
        settings.bearer_tokens()
    token.unlink()
    with pytest.raises(BadInput, match="cannot read"):
        settings.bearer_tokens()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"listen": "0.0.0.0:2803"}, "listen: alerts would be taken from anyone"),
        ({"listen": "[::]:2803"}, "listen on 127.0.0.1"),
        ({"listen": "tripshark.example:2803"}, "ingest.auth.bearer_files"),
        ({"listen": "0.0.0.0:2803", "ingest.auth": "none"}, "from anyone"),
        ({"ingest.listen": "0.0.0.0:2804"}, "ingest.tls.client_ca"),
        ({"ingest.tls": {"cert": "a", "key": "b"}}, "belongs to ingest.listen"),
        ({"tls": {"cert": "a"}}, "belong together"),
        ({"recorder": {"per_target": "700MB", "total": "1GB"}}, "one whole history"),
        ({"tls": {"client_ca": "a"}}, "needs cert and key"),
        ({"ingest.auth.secret_path": "short"}, "16 to 128"),
        ({"ingest.auth.secret_path": "../../../../etc/passwd"}, "letters"),
        ({"ingest.auth.bearer": [""]}, "let everyone in"),
        ({"ingest.auth.basic": {"a:b": "c"}}, "colon"),
        ({"listen": "0.0.0.0:1", "ingest.auth.basic": {"a": "b"}}, "would pass in clear"),
        ({"listen": "0.0.0.0:1", "ingest.listen": "127.0.0.1:2"}, "could read all evidence"),
        (
            {
                "listen": "0.0.0.0:1",
                "ingest.auth.secret_path": "0123456789abcdef",
                "kubernetes.access": True,
            },
            "tls.cert",
        ),
        ({"signin.tokens": [{"name": "a", "token": "too-short"}]}, "openssl rand"),
        ({"signin.tokens": [{"name": "a"}]}, "token or file"),
        (
            {"signin.tokens": [{"name": "a", "token": "0123456789abcdef0123", "namespaces": []}]},
            "at least 1",
        ),
        ({"signin.oidc": {"issuer": "https://a"}}, "client_id"),
        ({"signin.oidc": {"issuer": "https://a", "client_id": "b"}}, "signin.url"),
        ({"signin.proxy": {"trusted": ["everyone"]}}, "network"),
        ({"signin.proxy": {"user_header": "X-User"}}, "trusted"),
        ({"signin.proxy": {"trusted": ["::1"], "user_header": "X-User: a"}}, "header"),
        (
            {"signin.proxy": {"trusted": ["::1"], "user_header": "X-User"}},
            "nobody could do anything",
        ),
        ({"signin.roles": [{"role": "admin"}]}, "group or user"),
        ({"signin.url": "javascript:alert(1)"}, "https://HOST"),
        ({"listen": "127.0.0.1:70000"}, "ADDRESS:PORT"),
        ({"listen": "127.0.0.1"}, "ADDRESS:PORT"),
    ],
)
def test_what_would_be_unsafe_is_refused_with_the_remedy(
    overrides: dict[str, object], words: str
) -> None:
    """Off loopback nobody is let in without credentials, however it is said."""
    assert any(words in each for each in problems(overrides=overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        {"listen": "localhost:2803"},
        {"listen": "127.9.9.9:0"},
        {"listen": "[::1]:2803"},
        {
            "listen": "0.0.0.0:2803",
            "ingest.auth.basic": {"falco": "x"},
            "tls": {"cert": "a", "key": "b"},
        },
        {"listen": "0.0.0.0:2803", "ingest.auth.basic": {"falco": "x"}, "web.cleartext": True},
        {"listen": "0.0.0.0:2803", "tls": {"cert": "a", "key": "b", "client_ca": "c"}},
        {"listen": "0.0.0.0:2803", "ingest.auth.secret_path": "0123456789abcdef"},
        {
            "listen": "0.0.0.0:2803",
            "ingest.auth.basic": {"falco": "x"},
            "signin.proxy": {"trusted": ["10.0.0.1"], "user_header": "X-Forwarded-User"},
            "signin.roles": [{"group": "*"}],
        },
        {
            "listen": "0.0.0.0:2803",
            "ingest.auth.basic": {"falco": "x"},
            "tls": {"cert": "a", "key": "b"},
            "signin.url": "https://tripshark.example:2803",
            "signin.oidc": {"issuer": "https://id.example", "client_id": "tripshark"},
            "signin.roles": [{"group": "secops", "role": "responder"}],
        },
        {
            "ingest.listen": "0.0.0.0:2804",
            "ingest.tls": {"cert": "a", "key": "b", "client_ca": "c"},
        },
    ],
)
def test_what_is_safe_is_taken(overrides: dict[str, object]) -> None:
    """Loopback, or any credential."""
    settings = load(None, overrides, {})
    assert settings.alert_listen in (settings.listen, settings.ingest.listen)
    assert str(settings.alert_listen)


def test_a_secret_path_alone_lets_nobody_read() -> None:
    """It is taken, and said."""
    settings = load(
        None, {"listen": "0.0.0.0:1", "ingest.auth.secret_path": "0123456789abcdef"}, {}
    )
    assert "nobody can read" in settings.warnings[0]


def test_an_ordinary_users_data_lies_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root and without the system's folder: below XDG_STATE_HOME."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(loading, "SYSTEM_DATA", Path("/nonexistent/tripshark"))
    settings = load(None, {}, {"XDG_STATE_HOME": "/home/u/.state"})
    assert settings.data == Path("/home/u/.state/tripshark")
    assert next(each for each in explain(settings) if each.name == "data").source.startswith(
        "default of"
    )
    assert load(None, {"data": "/x"}, {}).data == Path("/x")


def test_settings_cannot_be_changed() -> None:
    """The tree is frozen."""
    with pytest.raises(ValueError, match="frozen"):
        load(None, {}, {}).listen = Listen("0.0.0.0", 1)  # type: ignore[misc]


def test_every_setting_has_a_meaning_and_a_unit() -> None:
    """Nothing is undocumented, and each has its variable."""
    for each in reference():
        assert each.meaning.endswith((".", ":", "…")), each.name
        assert each.unit, each.name
        assert each.variable or "[]" in each.name, each.name
    assert variable(("recorder", "per_target")) == "TRIPSHARK_RECORDER__PER_TARGET"


def test_the_reference_page_is_true() -> None:
    """docs/settings.md is what the settings say; `python -m tripshark.settings` writes it anew."""
    assert (ROOT / "docs" / "settings.md").read_text() == as_markdown()


def test_the_example_is_true_and_loads(tmp_path: Path) -> None:
    """examples/tripshark.yaml holds every setting as a comment with its default; uncommented it loads the same."""
    text = (ROOT / "examples" / "tripshark.yaml").read_text()
    assert text == as_yaml()
    assert yaml.safe_load(text) is None
    bare = "\n".join(line.removeprefix("# ") for line in text.splitlines())
    settings = load(write(tmp_path, bare), {}, {})
    assert settings.model_dump() == Settings().model_dump()
    top = set(Settings.model_fields)
    assert set(yaml.safe_load(bare)) == top


def test_a_world_readable_key_is_a_warning(tmp_path: Path) -> None:
    """Private keys are for their owner."""
    key = tmp_path / "key.pem"
    key.write_text("x")
    key.chmod(0o644)
    settings = load(None, {"tls": {"cert": str(key), "key": str(key)}}, {})
    assert str(key) in settings.warnings[0]
    assert stat.S_IMODE(key.stat().st_mode) == 0o644
