"""Whether there are several processes that train together; nothing here needs Lightning."""

from __future__ import annotations

from torch import distributed


def several_processes() -> bool:
    """Return whether this is one of several processes that train together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
