from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from ecgfair.ecg import ATTRIBUTES, FEMALE, EcgBatch, Preprocessing
from ecgfair.models.encoder import EncoderSpec
from ecgfair.training import PretrainModule

SMALL = EncoderSpec(arguments={"widths": [16, 24, 32], "trend_widths": [4, 8, 12], "dropout": 0.0})


@pytest.fixture
def make_batch() -> Callable[..., EcgBatch]:
    def make(records: int = 8, labels: int = 3, seed: int = 0) -> EcgBatch:
        generator = torch.Generator().manual_seed(seed)
        sex = torch.randint(2, (records,), generator=generator)
        attributes = torch.randn(records, len(ATTRIBUTES), generator=generator)
        attributes[:, 1] = (sex == FEMALE).float()
        return EcgBatch(
            signal=0.3 * torch.randn(records, 12, 1000, generator=generator),
            recorded=torch.ones(1, 1, 1, dtype=torch.bool).expand(records, 12, 1000),
            beats=torch.tensor([[100, 300, 500, 700, 900, -1]]).repeat(records, 1),
            attributes=attributes,
            age=torch.full((records,), 60.0),
            sex=sex,
            labels=(torch.rand(records, labels, generator=generator) < 0.3).float(),
            index=torch.arange(records),
        )

    return make


@pytest.fixture
def pretrain_module() -> PretrainModule:
    torch.manual_seed(0)
    return PretrainModule(Preprocessing(), encoder=SMALL, local_widths=[8], decoder_width=16)
