"""WFDB headers: what is understood, and that anything else is a reason and nothing worse."""

from __future__ import annotations

import contextlib
import datetime
import re
from pathlib import Path

import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from data_modules.readers.wfdb_signal import read_signal
from ecgfair.errors import RecordError
from tests.data_modules.made_wfdb import edit, made, reason, write


@pytest.mark.parametrize("name", ["r1.mat", "another-name", "r1"])
def test_the_name_in_the_record_line_does_not_matter(tmp_path: Path, name: str):
    write(tmp_path, made())
    plain = read_signal(tmp_path, "r1").signal
    (tmp_path / "r1.hea").write_text((tmp_path / "r1.hea").read_text().replace("r1 12", f"{name} 12", 1))
    before = sorted(tmp_path.iterdir())
    assert np.array_equal(read_signal(tmp_path, "r1").signal, plain)
    assert sorted(tmp_path.iterdir()) == before  # and nothing is written beside it


def test_comments_are_read_in_both_styles_and_whatever_their_encoding(tmp_path: Path):
    write(tmp_path, made())
    with (tmp_path / "r1.hea").open("ab") as header:
        header.write(b"\r\n#Sex: F\r\n  # Name: M\xfcller\n#\n")
    assert read_signal(tmp_path, "r1").comments == ("Age: 57", "Sex: F", "Name: M\N{REPLACEMENT CHARACTER}ller", "")


def test_the_date_of_recording_is_read(tmp_path: Path):
    write(tmp_path, made())
    edit(tmp_path, "^r1 12 500 40.*", "r1 12 500 40 09:17:34.5 09/11/1984")
    recorded = read_signal(tmp_path, "r1")
    header = wfdb.rdheader(str(tmp_path / "r1"))
    assert recorded.recorded_at == "1984-11-09T09:17:34.500000"
    assert datetime.datetime.fromisoformat(recorded.recorded_at) == header.base_datetime
    assert recorded.notes == ()


@pytest.mark.parametrize("stated", ["05-May-2020 09:49:17", "09:17:34 31/02/1984", "99:99:99 01/01/2000"])
def test_another_date_is_missing_and_noted(tmp_path: Path, stated: str):
    write(tmp_path, made())
    edit(tmp_path, "^r1 12 500 40.*", f"r1 12 500 40 {stated}")
    recorded = read_signal(tmp_path, "r1")
    assert recorded.recorded_at is None
    assert len(recorded.notes) == 1
    assert recorded.notes[0].startswith(f"date unreadable: {stated}, expected as in")


NUMBERS = ["0", "-1", "-0", "1", "12", "999", "1000000000000", "1e308", "1e-308", "nan", "inf", "\u0661"]
FIELDS = [
    "16",
    "212",
    "516",
    "8",
    "16x4",
    "16x0",
    "212x999",
    "16:3",
    "16+24",
    "1000/mV",
    "0/mV",
    "(1)/mV",
    "200(9" + "9" * 20,
]
TEXTS = ["", "~", "..", ".", "r1.dat", "r1.hea", "#", "#:", "/", "///", "\\", "II", "MLII", "\ufeff", "\0", "\x85"]
TOKENS = st.sampled_from([*NUMBERS, *FIELDS, *TEXTS, "12:00:00", "01/01/2000"])
EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("token"), st.integers(0, 150), TOKENS),
        st.tuples(st.just("bytes"), st.integers(0, 900), st.binary(max_size=4)),
        st.tuples(st.just("cut"), st.integers(0, 900), st.integers(0, 200)),
        st.tuples(st.just("repeat"), st.integers(0, 14), st.integers(0, 3)),
    ),
    min_size=1,
    max_size=5,
)


def mutated(header: bytes, edits: list[tuple[str, int, object]]) -> bytes:
    for kind, place, change in edits:
        if kind == "token":
            tokens = re.split(rb"([ \n])", header)
            tokens[2 * place % len(tokens)] = str(change).encode()
            header = b"".join(tokens)
        elif kind == "bytes":
            assert isinstance(change, bytes)
            header = header[:place] + change + header[place + len(change) :]
        elif kind == "cut":
            assert isinstance(change, int)
            header = header[:place] + header[place + change :]
        else:
            assert isinstance(change, int)
            lines = header.splitlines(keepends=True) or [b""]
            lines[place % len(lines)] *= change
            header = b"".join(lines)
    return header


@pytest.fixture(scope="module", params=["16", "212", "516"])
def intact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    folder = tmp_path_factory.mktemp("intact")
    write(folder, made(bits=12, leads=8), ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"), request.param)
    return folder, (folder / "r1.hea").read_bytes()


@settings(deadline=None, max_examples=150)
@given(edits=EDITS)
def test_any_damage_to_a_header_gives_a_signal_or_a_reason(
    intact: tuple[Path, bytes], edits: list[tuple[str, int, object]]
):
    folder, header = intact
    (folder / "r1.hea").write_bytes(mutated(header, edits))
    with contextlib.suppress(RecordError):
        recorded = read_signal(folder, "r1")
        assert recorded.signal.shape == (len(recorded.leads), recorded.signal.size // len(recorded.leads))
        assert recorded.signal.nbytes <= (folder / "r1.dat").stat().st_size * 8
        assert not np.isinf(recorded.signal).any()
        return
    assert re.match(r"[a-z][a-z -]*: .", reason(folder))


@settings(deadline=None, max_examples=150)
@given(content=st.binary(max_size=300))
def test_any_bytes_as_a_header_give_a_signal_or_a_reason(intact: tuple[Path, bytes], content: bytes):
    folder, _ = intact
    (folder / "r1.hea").write_bytes(content)
    assert re.match(r"[a-z][a-z -]*: .", reason(folder))
