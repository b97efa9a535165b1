"""What breaks under a training is told in one line; what is something else stays what it is."""

import pytest
from torch.utils.data import DataLoader

from ecgfair.cli.faults import told_faults
from ecgfair.errors import WorkerError


class Cut:
    """The end of a queue whose other end is gone."""

    def __init__(self, error):
        self.error = error

    def get(self, timeout):
        raise self.error


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError("no more")])
def test_a_worker_that_dies_while_it_sends_a_batch_is_told_as_one_that_died(tmp_path, error):
    batches = iter(DataLoader([1, 2, 3], num_workers=1))
    batches._data_queue = Cut(error)  # it is alive: the loader has not noticed yet
    wanted = "A process that loads data ended while it sent a batch"
    with pytest.raises(WorkerError, match=wanted) as told, told_faults(tmp_path):
        next(batches)
    assert str(error) in str(told.value)
    assert "There is no checkpoint yet; the same command starts anew." in str(told.value)


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError("no more")])
def test_a_connection_that_breaks_elsewhere_is_no_worker(tmp_path, error):
    with pytest.raises(type(error)) as told, told_faults(tmp_path):
        raise error
    assert told.value is error
