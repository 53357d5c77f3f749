"""Requests as resources and back, and the hostile ones: every refusal names its field."""

from __future__ import annotations

import copy
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tripshark.errors import BadInput
from tripshark.formats.capture_resource import (
    carries,
    collection,
    incident_of,
    moment,
    part_status,
    read,
    resource,
    status_patch,
    whole_status,
)
from tripshark.formats.capture_schema import SPECS, STATUS, check, definitions
from tripshark.model.evidence import IncidentId, incident_id
from tripshark.model.filter import Scope
from tripshark.model.fleet import (
    SECOND,
    Aim,
    Aimed,
    Condition,
    FleetRequest,
    PartKey,
    PartReport,
    Phase,
    Stage,
    resource_name,
)

CRDS = Path(__file__).parents[2] / "deploy" / "crds"
NOW = 1_700_000_000_123_456_789

NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
AIMS = st.one_of(
    st.builds(Aim, kind=st.just(Aimed.POD), name=NAMES, namespace=NAMES, uid=NAMES | st.just("")),
    st.builds(
        Aim,
        kind=st.just(Aimed.WORKLOAD),
        name=NAMES,
        namespace=NAMES,
        workload=st.sampled_from(["Deployment", "StatefulSet"]),
    ),
    st.builds(Aim, kind=st.just(Aimed.SERVICE), name=NAMES, namespace=NAMES),
    st.builds(Aim, kind=st.just(Aimed.NODE), name=NAMES),
)
MS = 10**6
REQUESTS = st.builds(
    FleetRequest,
    aims=st.lists(AIMS, min_size=1, max_size=3).map(tuple),
    t0_ns=st.integers(10**9, 2**62),
    before_ns=st.none() | st.integers(0, 3_600_000).map(lambda n: n * MS),
    after_ns=st.none() | st.integers(0, 900_000).map(lambda n: n * MS),
    scope=st.none() | st.sampled_from([Scope.FLOW, Scope.PEER, Scope.POD, Scope.NODE]),
    peer=st.sampled_from(
        ["", "203.0.113.66", "203.0.113.66:4444", "2001:db8::66", "[2001:db8::6]:44"]
    ),
    filter=st.text(max_size=50),
    max_bytes=st.none() | st.integers(1000, 10**10),
    incident=st.none() | NAMES.map(IncidentId),
    rule=st.text(max_size=50),
    alert=st.text(max_size=50),
    origin=NAMES,
    by=st.text(max_size=50),
    ttl_ns=st.integers(60, 7_776_000).map(lambda n: n * SECOND),
)


def served(request: FleetRequest, **status: object) -> dict[str, Any]:
    """The resource as an API server gives it back."""
    told: dict[str, Any] = resource(request, resource_name(request))
    told["metadata"] |= {
        "uid": "r-1",
        "resourceVersion": "7",
        "creationTimestamp": "2026-11-23T10:15:00Z",
    }
    return told | ({"status": status} if status else {})


def a_request(**more: Any) -> FleetRequest:
    return FleetRequest(
        aims=(Aim(kind=Aimed.POD, namespace="payments", name="checkout", uid="u1"),),
        t0_ns=NOW,
        **more,
    )


@given(request=REQUESTS)
def test_a_request_comes_back_as_it_went(request: FleetRequest) -> None:
    """Through the resource, whatever it asks for; `wide` is what the resource's kind says."""
    back = read(served(request))
    assert back.problem is None
    wide = not request.namespace and len(request.aims) == 1
    assert back.request == replace(request, wide=wide)
    assert (back.namespace, back.version, back.deleting) == (request.namespace, "7", False)
    assert back.path == f"{collection(back.kind, back.namespace)}/{back.name}"


def test_a_namespaced_capture_joins_no_incident_of_others() -> None:
    """Whoever may write a Capture can name anybody's incident; it becomes one of his namespace, the same on every node."""
    said = IncidentId("20261123t101502-7kq3f2")
    told = served(a_request(incident=said))
    mine = read(told)
    theirs = replace(mine, namespace="hr", uid="another")
    assert mine.request is not None
    assert mine.request.incident == said  # what was asked is not changed
    assert incident_of(mine) not in (said, incident_of(theirs))
    assert incident_of(replace(mine, uid="another", created_ns=5)) == incident_of(mine)
    assert incident_of(mine).startswith(f"{said}-")  # the hub's listing goes by the time in it
    wide = read(served(a_request(incident=said, wide=True)))
    assert incident_of(wide) == said  # the nodes' own


def test_a_thousand_captures_fill_no_nodes_memory() -> None:
    """Nodes pass alerts of any length on as ClusterCaptures; what people write in a namespace is held in part."""
    long = "x" * 100_000
    told = read(served(a_request(alert=long)))
    assert told.request is None
    assert told.problem is not None
    assert (told.problem.reason, "spec.alert" in told.problem.message) == ("Invalid", True)
    wide = read(served(a_request(alert=long, wide=True))).request
    assert wide is not None
    assert wide.alert == long


def test_without_an_incident_it_is_the_resources() -> None:
    """All nodes give their parts one id, and no two resources share it."""
    one = read(served(a_request()))
    assert incident_of(one) == incident_of(replace(one, version="7"))
    assert incident_of(one) != incident_of(replace(one, uid="another"))
    assert incident_id(incident_of(one)) == incident_of(one)


def test_the_path_is_the_apis() -> None:
    """Namespaced and not."""
    assert collection("Capture", "shop") == "/apis/tripshark.dev/v1alpha1/namespaces/shop/captures"
    assert collection("ClusterCapture") == "/apis/tripshark.dev/v1alpha1/clustercaptures"
    assert read(served(a_request())).title.startswith("payments/")
    assert "/" not in read(served(a_request(wide=True))).title


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"target": {}}, "spec.target"),
        ({"target": {"pod": "a", "service": "b"}}, "spec.target"),
        ({"target": {"pod": "a/b"}}, "spec.target.pod"),
        ({"target": {"pod": ""}}, "spec.target.pod"),
        ({"target": {"pod": "../../etc"}}, "spec.target.pod"),
        ({"target": {"service": "a", "uid": "u"}}, "spec.target.uid"),
        ({"target": {"workload": {"kind": "Deployment"}}}, "spec.target.workload"),
        ({"target": "checkout"}, "spec.target"),
        ({"t0": "yesterday"}, "spec.t0"),
        ({"t0": "2026-13-41T00:00:00Z"}, "spec.t0"),
        ({"before": "2h"}, "spec.before"),
        ({"before": "-1s"}, "spec.before"),
        ({"after": "16m"}, "spec.after"),
        ({"ttl": "1s"}, "spec.ttl"),
        ({"scope": "workload"}, "spec.scope"),
        ({"peer": "example.org; rm -rf /"}, "spec.peer"),
        ({"filter": "x" * 2049}, "spec.filter"),
        ({"maxBytes": 10**11}, "spec.maxBytes"),
        ({"maxBytes": True}, "spec.maxBytes"),
        ({"maxBytes": "50MB"}, "spec.maxBytes"),
        ({"incident": "../x"}, "spec.incident"),
        ({"alert": "x" * 262_145}, "spec.alert"),
    ],
)
def test_a_spec_that_is_not_as_it_should_be_names_its_field(
    change: dict[str, Any], where: str
) -> None:
    """And is no request."""
    told = served(a_request())
    told["spec"] |= change
    back = read(told)
    assert back.request is None
    assert back.problem is not None
    assert back.problem.reason == "Invalid"
    assert back.problem.message.startswith(f"{where}: ")


def test_a_capture_means_its_own_namespace_alone() -> None:
    """One that says another is refused with that reason; one that says its own is fine."""
    told = served(a_request())
    told["spec"]["target"]["namespace"] = "kube-system"
    problem = read(told).problem
    assert problem is not None
    assert problem.reason == "OutsideNamespace"
    told["spec"]["target"]["namespace"] = "payments"
    assert read(told).request == a_request()


@pytest.mark.parametrize(
    ("targets", "where"),
    [
        ([], "spec.targets"),
        ([{"node": "n1"}] * 17, "spec.targets"),
        ([{"pod": "a"}], "spec.targets[0].namespace"),
        ([{"node": "n1", "namespace": "a"}], "spec.targets[0].namespace"),
        ("n1", "spec.targets"),
    ],
)
def test_a_cluster_capture_says_where_each_target_is(targets: object, where: str) -> None:
    """A pod has a namespace, a node has none."""
    told = served(a_request(wide=True))
    told["spec"]["targets"] = targets
    problem = read(told).problem
    assert problem is not None
    assert problem.message.startswith(f"{where}: ")


def test_without_t0_it_is_when_it_was_created() -> None:
    """A capture by hand need not say a moment: it is the end of the second that the server stamped."""
    told = served(replace(a_request(), t0_ns=0))
    assert "t0" not in told["spec"]
    back = read(told).request
    assert back is not None
    assert back.t0_ns == moment("2026-11-23T10:15:00.999999999Z")


def test_what_no_node_would_read_is_not_written() -> None:
    """The asker hears it at once, with the field."""
    with pytest.raises(BadInput) as caught:
        resource(a_request(filter="x" * 3000), "x")
    assert caught.value.where == "spec.filter"
    assert carries("{}")
    assert not carries("x" * 262_145)


def test_a_rule_that_wants_more_than_may_be_asks_for_what_may_be() -> None:
    """A rule's two hours before must not make every node refuse."""
    day = 86_400 * SECOND
    back = read(served(a_request(before_ns=day, after_ns=day, ttl_ns=1, max_bytes=10**12))).request
    assert back is not None
    assert (back.before_ns, back.after_ns) == (3600 * SECOND, 900 * SECOND)
    assert (back.ttl_ns, back.max_bytes) == (60 * SECOND, 10**10)


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"kind": "Pod", "metadata": {"name": "a", "uid": "b"}},
        {"kind": "Capture", "metadata": "a"},
        {"kind": "Capture", "metadata": {"name": "a"}},
        {"kind": "Capture", "metadata": {"name": "", "uid": "b"}},
        {"kind": ["Capture"], "metadata": {}},
    ],
)
def test_what_is_no_resource_at_all_raises(told: dict[str, Any]) -> None:
    """Nothing can be reported about it."""
    with pytest.raises(BadInput):
        read(told)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "target",
                    "targets",
                    "pod",
                    "parts",
                    "conditions",
                    "node",
                    "uid",
                    "state",
                    "phase",
                ]
            )
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(kind=st.sampled_from(["Capture", "ClusterCapture"]), spec=JSON, status=JSON)
def test_nothing_in_spec_or_status_raises(kind: str, spec: Any, status: Any) -> None:
    """It is a request or a problem, whatever stands there."""
    back = read(
        {"kind": kind, "metadata": {"name": "a", "uid": "b"}, "spec": spec, "status": status}
    )
    assert (back.request is None) is (back.problem is not None)


PART = PartReport(
    node="n1",
    uid="u1",
    target="payments/checkout",
    incident="20261123t101502-7kq3f2",
    stage=Stage.SEALED,
    reason="",
    message="m",
    word="complete",
    packets=12,
    bytes=3400,
    sha256="ab" * 32,
    location="s3://b/evidence",
    frozen_ns=NOW,
    at_ns=NOW,
)


def test_a_status_comes_back_as_it_went() -> None:
    """Parts, conditions, who is expected, and when it was finished."""
    known = read(served(a_request()))
    conditions = (Condition(type="Complete", status=True, reason="Complete", message="1 of 1"),)
    expected = (PartKey(node="n1", uid="u1"), PartKey(node="n2", uid="u2"))
    said = whole_status(
        known,
        phase=Phase.PARTIAL,
        conditions=conditions,
        parts=[PART],
        expected=expected,
        now_ns=NOW,
    )
    check(STATUS, said | part_status([PART]), "status")
    assert said["progress"] == "1/2"
    assert said["packets"] == 12
    back = read(served(a_request(), **said, **part_status([PART])))
    assert back.parts == (PART,)
    assert back.expected == expected
    assert back.phase is Phase.PARTIAL
    assert back.finished_ns == NOW
    assert back.conditions == {"Complete": (conditions[0], "2023-11-14T22:13:20Z")}
    later = whole_status(
        back,
        phase=Phase.COMPLETE,
        conditions=(replace(conditions[0], message=""), replace(conditions[0], type="Frozen")),
        parts=[],
        expected=None,
        now_ns=NOW + 5 * SECOND,
    )
    assert later["finished"] == said["finished"]
    times = [each["lastTransitionTime"] for each in later["conditions"]]  # type: ignore[index,union-attr,call-overload]
    assert times == ["2023-11-14T22:13:20Z", "2023-11-14T22:13:25Z"]
    pending = whole_status(
        back, phase=Phase.PENDING, conditions=(), parts=[], expected=(), now_ns=NOW
    )
    assert "finished" not in pending
    nothing = whole_status(
        read({"kind": "Capture", "metadata": {"name": "a", "uid": "b"}}),
        phase=Phase.REFUSED,
        conditions=(),
        parts=[replace(PART, frozen_ns=0, at_ns=0)],
        expected=None,
        now_ns=NOW,
    )
    assert nothing["target"] == "?"
    assert "frozen" not in part_status([replace(PART, frozen_ns=0)])["parts"][0]  # type: ignore[index,operator]


def test_a_patch_names_its_resource() -> None:
    """With a version it holds only for that one."""
    known = read(served(a_request()))
    patch = status_patch(known, {"phase": "Pending"}, version="7")
    assert patch["metadata"] == {
        "name": known.name,
        "namespace": "payments",
        "resourceVersion": "7",
    }
    wide = read(served(a_request(wide=True)))
    assert status_patch(wide, {})["metadata"] == {"name": wide.name}
    at_any_time = status_patch(known, {})["metadata"]
    assert at_any_time == {"name": known.name, "namespace": "payments"}


def test_of_a_hostile_status_only_what_can_be_read_is_read() -> None:
    """A bad part does not hide a good one."""
    good = part_status([PART])["parts"][0]  # type: ignore[index]
    told = served(
        a_request(),
        phase="Dancing",
        parts=[good, {"node": "n2"}, "x", {**copy.deepcopy(good), "state": "?"}],  # type: ignore[dict-item]
        conditions=[{"type": 7}],
        expected=[{"node": "n1"}, {"node": "n1", "uid": "u1"}],
    )
    back = read(told)
    assert back.parts == (PART,)
    assert back.phase is None
    assert back.conditions == {}
    assert back.expected == (PartKey(node="n1", uid="u1"),)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:01Z", 10**9),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("1970-01-01T00:00:01.000000007Z", 10**9 + 7),
        ("1970-01-01T00:00:01+01:00", None),
        ("1970-02-30T00:00:01Z", None),
        ("9999-01-01T00:00:01Z", None),
        ("", None),
    ],
)
def test_moments(text: str, ns: int | None) -> None:
    """RFC 3339 in UTC, exact to the nanosecond."""
    assert moment(text) == ns


def test_the_definitions_in_deploy_are_the_schema() -> None:
    """What is installed is what we check with; `deploy/crds/generate` writes it."""
    generate = runpy.run_path(str(CRDS / "generate"))
    written = (CRDS / "captures.yaml").read_text()
    assert written == generate["text"]()
    assert tuple(yaml.safe_load_all(written)) == definitions()
    assert "x-kubernetes-validations" not in generate["text"](cel=False)


def _fields(schema: Any, where: str) -> list[str]:
    """Every place in a schema where a value has no bound."""
    kind = schema["type"]
    if kind == "object":
        return [
            missing
            for name, inner in schema["properties"].items()
            for missing in _fields(inner, f"{where}.{name}")
        ]
    if kind == "array":
        return ([] if "maxItems" in schema else [where]) + _fields(schema["items"], f"{where}[]")
    if kind == "integer":
        return [] if {"minimum", "maximum"} <= schema.keys() else [where]
    return [] if {"maxLength"} <= schema.keys() or "enum" in schema else [where]


def test_every_field_has_a_bound() -> None:
    """Whoever may create a Capture cannot fill etcd or a node with one."""
    for schema in (*SPECS.values(), STATUS):
        assert _fields(schema, "") == []


def test_requests_choose_what_never_where_to() -> None:
    """No field of a spec is a destination, a path, an image or a command."""
    text = str([_names(schema) for schema in SPECS.values()]).lower()
    for word in ("dest", "path", "url", "image", "command", "bucket", "output", "secret", "host"):
        assert word not in text


def _names(schema: Any) -> list[Any]:
    inner = schema.get("properties", {})
    return (
        [*inner, *(_names(each) for each in inner.values()), _names(schema.get("items", {}))]
        if schema
        else []
    )


@pytest.mark.parametrize(
    ("target", "fits"),
    [
        ({"pod": "a"}, True),
        ({"pod": "a", "uid": "u"}, True),
        ({"service": "a"}, True),
        ({"workload": {"kind": "Job", "name": "a"}}, True),
        ({}, False),
        ({"pod": "a", "service": "b"}, False),
        ({"service": "a", "uid": "u"}, False),
    ],
)
def test_the_rules_for_new_servers_say_what_the_schema_says(
    target: dict[str, Any], fits: bool
) -> None:
    """The CEL rules, evaluated here by another implementation than the API server's: none was at hand that knows them."""
    import cel

    for kind, schema in SPECS.items():
        inner: Any = schema["properties"]
        wanted = inner["target"] if kind == "Capture" else inner["targets"]["items"]
        answers = [
            cel.evaluate(rule["rule"], {"self": target})
            for rule in wanted["x-kubernetes-validations"]
        ]
        assert all(answers) is fits
