"""The records of all ranks, each of them once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from ecgfair.errors import ConfigurationError


def all_records(
    nobody: Mapping[str, Tensor], batches: Sequence[Mapping[str, Tensor]], trainer: Trainer
) -> dict[str, Tensor]:
    """Put the records of an epoch together, those of all ranks, each once, in the order of the store.

    Every rank has to call this.

    Args:
        nobody: No rows, of the same columns, types and further shapes on every rank; see ``outputs.no_records``.
        batches: This rank's rows; none if it had no record.
        trainer: Its strategy moves the rows.

    Returns:
        The columns of ``nobody``.
    """
    own = [nobody, *batches]
    return unique_by_index(gather_rows({name: torch.cat([part[name] for part in own]) for name in own[0]}, trainer))


def gather_rows(columns: Mapping[str, Tensor], trainer: Trainer) -> dict[str, Tensor]:
    """Put the rows of all ranks together, in the order of the ranks, on every rank.

    Ranks may hold different numbers of rows, or none. Every rank has to call this, with the same columns.

    Args:
        columns: CPU tensors (rows, ...), as many rows in each; on every rank of the same type and further shape.
        trainer: Its strategy moves the rows, over the network of the devices.

    Returns:
        CPU tensors (rows of all ranks, ...).
    """
    if trainer.world_size == 1:
        return dict(columns)
    strategy = trainer.strategy
    rows = len(next(iter(columns.values())))
    counts = strategy.all_gather(torch.tensor([rows], device=strategy.root_device)).flatten().tolist()
    gathered = {}
    for name, column in columns.items():
        # Collectives move tensors of one shape, so shorter ranks are padded and the padding is cut off again.
        padded = column.new_zeros(max(counts), *column.shape[1:])
        padded[:rows] = column
        ranks = strategy.all_gather(padded.to(strategy.root_device)).cpu()
        gathered[name] = torch.cat([rank[:count] for rank, count in zip(ranks, counts, strict=True)])
    return gathered


def unique_by_index(columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sort rows by ``index`` and keep the first of each: samplers that pad hand the same record to two ranks.

    Args:
        columns: Tensors (rows, ...); besides ``index`` (rows,) int64 some that describe a record.

    Raises:
        ConfigurationError: Rows of one index differ in age, sex or targets, hence are different records.
    """
    index, order = columns["index"].sort(stable=True)
    repeated = torch.zeros(len(index), dtype=torch.bool)
    repeated[1:] = index[1:] == index[:-1]
    table = {name: column[order] for name, column in columns.items()}
    again = repeated.nonzero()[:, 0]
    for name in ("age", "sex", "targets"):
        values = table[name].double().nan_to_num(nan=-1.0)
        differing = (values[again] != values[again - 1]).nonzero()[:, 0]
        if len(differing):
            position = int(index[again[differing[0]]])
            raise ConfigurationError(
                f"Records with the index {position} differ in {name}: expected EcgBatch['index'] to be the position in "
                "the store, the same only for the same record."
            )
    return {name: column[~repeated] for name, column in table.items()}


def refuse_skipped_ranks(trainer: Trainer, pl_module: LightningModule) -> None:
    """Refuse the one set-up in which ranks would wait for each other forever.

    Raises:
        ConfigurationError: Lightning was told to skip the evaluation on a rank without records.
    """
    flag = "allow_zero_length_dataloader_with_multiple_devices"
    owners = (pl_module, getattr(trainer, "datamodule", None))
    if trainer.world_size > 1 and any(getattr(owner, flag, False) for owner in owners):
        raise ConfigurationError(
            f"{flag} is set: Lightning then skips the evaluation on a rank without records, and the other ranks "
            "wait for its part. Unset it, and give every rank a record or a loader without a length."
        )
