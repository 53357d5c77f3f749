"""Techniques of MITRE ATT&CK have their names."""

from __future__ import annotations

from tripshark.model.attack import _NAMES, TACTICS, technique, techniques_in


def test_a_technique_has_its_name_and_tactics() -> None:
    """A known one its own, an unknown sub-technique its parent's, any other none."""
    dns = technique("T1071.004")
    assert (dns.title, dns.tactics) == (
        "T1071.004 Application Layer Protocol: DNS",
        ("TA0011",),
    )
    assert technique("T1046.999").title == "T1046.999 Network Service Discovery"
    assert technique("T9999").title == "T9999"
    assert technique("T9999").tactics == ()


def test_the_table_is_consistent() -> None:
    """Every tactic of every technique is one, and a sub-technique begins with its parent's name."""
    for id in _NAMES:
        known = technique(id)
        assert known.tactics, id
        assert set(known.tactics) <= set(TACTICS), id
        parent = _NAMES.get(id.partition(".")[0])
        if "." in id and parent is not None:
            assert known.name.startswith(f"{parent[0]}: "), id


def test_techniques_are_found_among_tags() -> None:
    """Falco's tags mix tactics, words and techniques."""
    tags = ("network", "TA0011", "T1071", "mitre_exfiltration", "T1071", "T1048.003", "T10710")
    assert techniques_in(tags) == ("T1071", "T1048.003")
