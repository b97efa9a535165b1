"""What breaks under a training that is nobody's mistake in a configuration, told in one line like all else."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ecgfair.callbacks import LAST
from ecgfair.errors import EcgFairError, WorkerError, WriteError

_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_DEAD_WORKER: Final = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)")
_FROM_WORKER: Final = re.compile(r"Caught \w+ in DataLoader worker process")


@contextmanager
def told_faults(run: Path) -> Iterator[None]:
    """Tell dead workers and full disks in one line, and take errors of workers out of their tracebacks.

    Args:
        run: The run folder, whose last checkpoint is named.

    Raises:
        WorkerError: A process that loads data died.
        WriteError: A disk is full, or can't be written.
        EcgFairError: Of a worker, as it was raised there.
    """
    try:
        yield
    except EcgFairError as error:
        if _FROM_WORKER.match(str(error)):
            raise _as_raised(error) from error
        raise
    except RuntimeError as error:
        dead = _DEAD_WORKER.search(str(error))
        if dead is None:
            raise
        raise WorkerError(
            f"A process that loads data (pid {dead[1].strip()}) {_fate(dead[2])}: it may have been killed for the "
            f"memory it took; fewer of them take less (--data.init_args.num_workers). {_kept(run)}"
        ) from error
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise WriteError(
            f"{error.filename or run} can't be written ({error.strerror}). Make room or mend the disk. {_kept(run)}"
        ) from error


def _as_raised(error: EcgFairError) -> EcgFairError:
    """Return an error without what a DataLoader puts around it: the last line of the worker's traceback."""
    last = str(error).strip().splitlines()[-1]
    return type(error)(last.partition(": ")[2] or last)


def _fate(said: str) -> str:
    return said.partition(".")[0].strip()


def _kept(run: Path) -> str:
    if (run / LAST).is_file():
        return f"{run / LAST} is kept; the same command goes on from it."
    return "There is no checkpoint yet; the same command starts anew."
