"""Shard: one file of signals, mapped into memory where stores are small and read by position where they are large."""

from __future__ import annotations

import os
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_modules.stores.intact import Intact
from data_modules.stores.shard_cache import OpenFile

MAPPED_BYTES: Final = 1 << 30
"""Bytes of signals of a store up to which its files are mapped. What is read of a mapped file counts as this process's
memory, on some systems a megabyte around every record, until the file is let go."""


class Shard:
    """The records of one Arrow file: one batch with one column of fixed-size int16 lists.

    Args:
        file: The file.
        intact: Whether it is what was written; who reads from it asks first.
        shape: (rows, leads, time) expected in it.
        is_mapped: Whether to keep it mapped.
        is_random: Whether to have the system read no more than what is asked for: around a record drawn at random
            there is none of the batch, and some disks read megabytes ahead.

    Raises:
        ValueError: It holds something else.
        pyarrow.ArrowException: It is no Arrow file.
    """

    def __init__(
        self, file: OpenFile, intact: Intact, shape: tuple[int, int, int], *, is_mapped: bool, is_random: bool
    ) -> None:
        self._file = file
        self.intact = intact
        mapped = file.map()
        column = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped))).get_batch(0).column("signal")
        signals: NDArray[np.int16] = column.flatten().to_numpy().reshape(shape)
        if signals.dtype != np.int16:
            raise ValueError(f"samples of the type {signals.dtype}, expected int16")
        self._size = signals.nbytes // max(len(signals), 1)
        # The records lie in one piece between the Arrow header and footer.
        self._begin = signals.ctypes.data - np.frombuffer(mapped, dtype=np.uint8).ctypes.data
        by_position = not is_mapped and hasattr(os, "preadv")
        self._mapped = None if by_position else signals
        if is_random and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def take(self, rows: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        """Copy records, each from its row, in one operation if the file is mapped.

        Args:
            rows: (B,) positions in the shard, each inside it.
            out: (B, leads, time), contiguous.

        Raises:
            OSError: The file can't be read to the end of a record.
        """
        if self._mapped is not None:
            # No row is outside; without "clip" NumPy would copy everything a second time.
            np.take(self._mapped, rows, axis=0, out=out, mode="clip")
            return
        for place, row in enumerate(rows.tolist()):
            self.read(row, out[place])

    def read(self, row: int, out: NDArray[np.int16]) -> None:
        """Copy one record into (leads, time), contiguous; see ``take``."""
        if self._mapped is not None:
            out[...] = self._mapped[row]
            return
        if os.preadv(self._file.descriptor, [out.data], self._begin + row * self._size) != self._size:
            raise OSError(f"record {row} of the file is cut short")
