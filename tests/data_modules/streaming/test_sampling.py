import pytest

from data_modules.streaming.sampling import UnpaddedDistributedSampler
from ecgfair.errors import ConfigurationError


@pytest.mark.parametrize("processes", [1, 2, 3, 11])
def test_every_record_is_seen_exactly_once_at_any_number_of_processes(processes):
    shares = [list(UnpaddedDistributedSampler(range(11), processes, rank)) for rank in range(processes)]
    assert sorted(position for share in shares for position in share) == list(range(11))
    assert [len(UnpaddedDistributedSampler(range(11), processes, rank)) for rank in range(processes)] == [
        len(share) for share in shares
    ]


def test_a_process_without_a_record_is_refused():
    with pytest.raises(ConfigurationError, match="2 records can't be shared by 3 processes"):
        UnpaddedDistributedSampler(range(2), 3, 0)
