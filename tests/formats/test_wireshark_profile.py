"""The profile's files as text: what Wireshark itself makes of them is tried in `tests/wireshark`."""

from __future__ import annotations

import io
import zipfile

from tripshark.formats.wireshark_profile import BUTTONS, COLOURS, COLUMNS, NAME, archive, files


def test_no_name_is_looked_up_and_none_is_believed() -> None:
    """Pods' names are shown; neither a name server is asked nor an answer within the capture taken."""
    preferences = files()["preferences"]
    for line in (
        "nameres.network_name: TRUE",
        "nameres.use_external_name_resolver: FALSE",
        "nameres.dns_pkt_addr_resolution: FALSE",
    ):
        assert f"{line}\n" in preferences
    assert all(f'"{title}", "{kind}"' in preferences for title, kind in COLUMNS)


def test_every_rule_is_one_line_of_four_parts() -> None:
    """Colours: name, filter, two colours of 16 bits; buttons: four quoted fields, no quote left open."""
    rules = [line for line in files()["colorfilters"].splitlines() if line.startswith("@")]
    assert len(rules) == len(COLOURS)
    assert all(line.count("@") == 3 for line in rules)
    assert rules[0].endswith("@[50886,0,0][65535,65535,65535]")
    buttons = files()["dfilter_buttons"].splitlines()
    assert len(buttons) == len(BUTTONS)
    assert all(line.count('"') == 8 for line in buttons)


def test_the_zip_has_one_folder_and_never_differs() -> None:
    """Every file below the profile's name, with nothing of when or where it was made."""
    assert archive() == archive()
    with zipfile.ZipFile(io.BytesIO(archive())) as file:
        assert {each.filename for each in file.infolist()} == {
            f"{NAME}/{name}" for name in files()
        }
        assert {each.date_time for each in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
