"""A carried file as a row of the findings."""

from __future__ import annotations

from tripshark.model.files import CarriedFile


def test_a_row_says_all_but_whether_it_runs() -> None:
    """Every field of the table, and a filter that shows the frame."""
    file = CarriedFile(
        name="x.elf",
        source="HTTP",
        type="ELF program",
        runs=True,
        sha256="ab",
        md5="cd",
        bytes=7,
        complete=True,
        client="10.0.0.1",
        server="203.0.113.66",
        uploaded=False,
        first_ns=1,
        frame=9,
    )
    row = file.row()
    assert row["filter"] == "frame.number == 9"
    assert (row["name"], row["sha256"], row["complete"]) == ("x.elf", "ab", True)
