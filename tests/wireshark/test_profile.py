"""The profile and the installer: what Wireshark's own programs make of them, and whose files are left alone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.wireshark.conftest import Home
from tripshark.formats.wireshark_profile import BUTTONS, COLOURS

DEMO = str(Path(__file__).parent.parent / "captures" / "incident-demo.pcapng")
PROFILE = ".config/wireshark/profiles/Tripshark"


@pytest.fixture
def installed(home: Home) -> Home:
    done = home.tripshark("wireshark", "install", "--data", "/nonexistent/it's here")
    assert done.code == 0, done.err
    return home


def test_tshark_takes_names_and_columns_from_it(installed: Home) -> None:
    """Pods have their names, a DNS answer does not rename one, and the pod, direction and comment have columns."""
    rows = installed.run("tshark", "-C", "Tripshark", "-r", DEMO).splitlines()
    assert (
        "payments/checkout-7d9f:eth0 Outbound payments/checkout-7d9f → kube-system/kube-dns"
        in rows[0]
    )
    assert any("First packet of the flow" in row for row in rows)
    assert "payments/checkout-7d9f" not in installed.run("tshark", "-r", DEMO).splitlines()[0]


def test_sharkd_takes_colours_from_it(installed: Home) -> None:
    """Alert rows by priority, and noted packets."""
    asked = [{"method": "load", "params": {"file": DEMO}}, {"method": "frames", "params": {}}]
    said = installed.run(
        "sharkd",
        "-C",
        "Tripshark",
        stdin="".join(
            json.dumps({"jsonrpc": "2.0", "id": n, **each}) + "\n"
            for n, each in enumerate(asked, 1)
        ),
    )
    frames = json.loads(said.splitlines()[-1])["result"]
    colours = {each["num"]: each.get("bg") for each in frames}
    assert (colours[3], colours[4], colours[8]) == ("c60000", "fff59d", "ff9c00")


def test_every_filter_of_it_is_one(installed: Home) -> None:
    """Buttons and colours: each compiles, and so does what switches profiles."""
    settings = (installed.path / PROFILE / "profile_settings").read_text()
    switch = settings.partition("auto_switch_filter: ")[2].strip()
    filters = [each[1] for each in (*BUTTONS, *COLOURS)] + [switch]
    asked = "".join(
        json.dumps({"jsonrpc": "2.0", "id": n, "method": "check", "params": {"filter": each}})
        + "\n"
        for n, each in enumerate(filters, 1)
    )
    answers = [json.loads(line) for line in installed.run("sharkd", "-", stdin=asked).splitlines()]
    wrong = [
        filters[each["id"] - 1] for each in answers if each.get("result", {}).get("status") != "OK"
    ]
    assert not wrong
    assert len(answers) == len(filters)


def test_the_zip_is_the_folder_and_always_the_same(installed: Home) -> None:
    """What is imported is what is installed; two zips are the same bytes."""
    made = [installed.path / name for name in ("a.zip", "b.zip")]
    for path in made:
        assert installed.tripshark("wireshark", "profile", "-o", str(path)).code == 0
    assert made[0].read_bytes() == made[1].read_bytes()
    subprocess.run(
        ["python3", "-m", "zipfile", "-e", str(made[0]), str(installed.path)], check=True
    )
    for path in (installed.path / "Tripshark").iterdir():
        assert path.read_bytes() == (installed.path / PROFILE / path.name).read_bytes()


def test_installing_twice_changes_nothing_and_uninstalling_leaves_nothing(installed: Home) -> None:
    """The second time all is unchanged; afterwards not even an empty folder is left."""
    again = installed.tripshark(
        "wireshark", "install", "--data", "/nonexistent/it's here", "--json"
    )
    assert {json.loads(line)["state"] for line in again.out.splitlines()} == {"same"}
    extcap = installed.path / ".config/wireshark/extcap/tripshark"
    done = subprocess.run(
        [extcap, "--extcap-interfaces"], capture_output=True, text=True, check=True
    )
    assert "{value=tripshark:away}" in done.stdout
    assert installed.tripshark("wireshark", "uninstall").code == 0
    assert not [path for path in installed.path.rglob("*") if path.is_file()]
    assert installed.tripshark("wireshark", "status").out.count("not there") == 7


def test_what_somebody_changed_is_theirs(installed: Home) -> None:
    """Neither replaced nor removed, and that is said; --force is needed. `recent` is Wireshark's own to change."""
    mine = installed.path / PROFILE / "preferences"
    mine.write_text("gui.packet_list_show_related: FALSE\n")
    (installed.path / PROFILE / "recent").write_text("# Wireshark was here\n")
    (installed.path / PROFILE / "dfilter_macros").write_text("")
    again = installed.tripshark("wireshark", "install")
    assert again.code == 3
    assert "kept: not as we wrote it" in again.out
    assert mine.read_text().startswith("gui")
    assert "Wireshark was here" in (installed.path / PROFILE / "recent").read_text()
    assert installed.tripshark("wireshark", "uninstall").code == 0
    left = {path.name for path in installed.path.rglob("*") if path.is_file()}
    assert left == {"preferences", "dfilter_macros"}
    assert installed.tripshark("wireshark", "install", "--force").code == 0
    assert "network_name: TRUE" in mine.read_text()


def test_a_profile_of_that_name_that_is_not_ours_is_left_alone(home: Home) -> None:
    """Somebody had one before: all of it stays, also a list of ours that they made up."""
    theirs = home.path / PROFILE
    theirs.mkdir(parents=True)
    (theirs / "preferences").write_text("theirs\n")
    victim = home.path / "victim"
    victim.write_text("")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    (theirs / "tripshark-installed.json").write_text(json.dumps({str(victim): empty}))
    assert home.tripshark("wireshark", "install", "--profile-only").code == 3
    home.tripshark("wireshark", "uninstall")
    assert (theirs / "preferences").read_text() == "theirs\n"
    assert victim.exists()
