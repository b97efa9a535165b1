"""WFDB records written as wfdb and the format's manual have it, to be read or broken."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import wfdb

from data_modules.readers.wfdb_signal import read_signal
from ecgfair.ecg import LEADS
from ecgfair.errors import RecordError

FORMATS = {"16": 16, "24": 24, "32": 32, "61": 16, "80": 8, "160": 16, "212": 12, "310": 10, "311": 10}
COMPRESSED = {"508": 8, "516": 16, "524": 24}


def made(samples: int = 40, leads: int = 12, bits: int = 16) -> np.ndarray:
    """(time, leads) steps over the whole range of a format, but for its "no sample"."""
    top = 2 ** (bits - 1) - 1
    return np.random.default_rng(0).integers(-top, top, size=(samples, leads), endpoint=True)


def packed_310(steps: np.ndarray) -> bytes:
    first, second, third = (steps.ravel() & 1023).astype("<u2").reshape(-1, 3).T
    return np.stack([first << 1 | (third & 31) << 11, second << 1 | third >> 5 << 11], axis=1).tobytes()


def packed_311(steps: np.ndarray) -> bytes:
    first, second, third = (steps.ravel() & 1023).astype("<u4").reshape(-1, 3).T
    return bytes((first | second << 10 | third << 20).tobytes())


PACKED: dict[str, Callable[[np.ndarray], bytes]] = {
    "61": lambda steps: steps.astype(">i2").tobytes(),
    "160": lambda steps: (steps + 2**15).astype("<u2").tobytes(),
    "310": packed_310,
    "311": packed_311,
}
"""Formats of the manual that wfdb reads but does not write."""


def write(
    folder: Path,
    steps: np.ndarray,
    names: tuple[str, ...] = LEADS,
    stored: str = "16",
) -> None:
    """Write ``r1.hea`` and ``r1.dat`` as wfdb does."""
    count = steps.shape[1]
    wfdb.wrsamp(
        "r1",
        fs=500,
        units=["mV"] * count,
        sig_name=list(names),
        d_signal=steps,
        fmt=["16" if stored in PACKED else stored] * count,
        adc_gain=[1000.0] * count,
        baseline=[3] * count,
        comments=["Age: 57"],
        write_dir=str(folder),
    )
    if stored in PACKED:
        (folder / "r1.dat").write_bytes(PACKED[stored](steps))
        edit(folder, r"^r1\.dat 16 ", f"r1.dat {stored} ")


def edit(folder: Path, pattern: str, replacement: str, count: int = 0) -> None:
    header = folder / "r1.hea"
    text = header.read_text()
    changed = re.sub(pattern, replacement, text, count=count, flags=re.MULTILINE)
    assert changed != text
    header.write_text(changed)


def as_wfdb(folder: Path) -> np.ndarray:
    record = wfdb.rdrecord(str(folder / "r1"))
    return record.p_signal.T.astype(np.float32)


def reason(folder: Path, name: str = "r1") -> str:
    with pytest.raises(RecordError) as caught:
        read_signal(folder, name)
    assert str(folder) not in str(caught.value)  # or the same source elsewhere would make another store
    return str(caught.value)
