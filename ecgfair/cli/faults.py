"""What breaks under a training that is nobody's mistake in a configuration, told in one line like all else."""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from torch.utils.data import dataloader

from ecgfair.callbacks import LAST
from ecgfair.errors import EcgFairError, WorkerError, WriteError

_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_DEAD_WORKER: Final = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)")
_FETCH: Final = dataloader._MultiProcessingDataLoaderIter._try_get_data.__code__  # noqa: SLF001  # there is no public name
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
        raise _dead(f" (pid {dead[1].strip()}) {_fate(dead[2])}", run) from error
    except (ConnectionError, EOFError) as error:
        if not _while_a_batch_was_fetched(error):
            raise
        raise _dead(f" ended while it sent a batch ({error})", run) from error
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


def _while_a_batch_was_fetched(error: BaseException) -> bool:
    """Whether an error is of a DataLoader that talked to a worker, whose death it has not noticed yet."""
    called = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code is _FETCH for frame, _ in called)


def _dead(how: str, run: Path) -> WorkerError:
    return WorkerError(
        f"A process that loads data{how}: it may have been killed for the memory it took; fewer of them take less "
        f"(--data.init_args.num_workers). {_kept(run)}"
    )


def _fate(said: str) -> str:
    return said.partition(".")[0].strip()


def _kept(run: Path) -> str:
    if (run / LAST).is_file():
        return f"{run / LAST} is kept; the same command goes on from it."
    return "There is no checkpoint yet; the same command starts anew."
