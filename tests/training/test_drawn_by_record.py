"""What records draw in training follows from run, step and record, not from batches, in both stages."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader

from ecgfair.models.conditioning import Conditioning
from ecgfair.models.encoder import EncoderSpec
from ecgfair.signals.augmentation import Augmentation
from ecgfair.signals.draws import Draws
from ecgfair.training import FinetuneModule, PretrainModule
from ecgfair.training.pretrain import PretrainWeights
from tests.training.finetune_cases import NARROW, labelled_batch, quiet_module
from tests.training.tiny import PREPROCESSING

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:lightning.fabric.utilities.warnings.PossibleUserWarning",
    "ignore:You defined a `validation_step`:lightning.fabric.utilities.warnings.PossibleUserWarning",
)
RECORDS = 8
EVERYTHING = PretrainWeights(
    altered=1.0, altered_map=1.0, altered_beat=1.0, single_beat=1.0, single_beat_attributes=1.0
)
SPEC = EncoderSpec("TwoScaleEncoder", NARROW | {"dropout": 0.3})
STRONG = Augmentation(3.0, 0.3, 0.2, 0.1, 0.2, 0.1, 0.1)
WHOLE = list(range(RECORDS))
SPLITS = [[[0, 1, 2, 3], [4, 5, 6, 7]], [[7, 2, 5], [1], [6, 0, 3, 4]]]


def rows_of(rows):
    """Some records as a batch of their own, with fewer columns for beats where that is possible."""
    batch = {name: value[rows] for name, value in labelled_batch(RECORDS).items()}
    beats = batch["beats"]
    return batch | {"beats": beats[:, : max(int((beats >= 0).sum(dim=1).max()), 1)]}


def norms_fixed(module):
    """In training, with norms that do not look at who else is in the batch."""
    module.train()
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()
    return module


def pretraining():
    torch.manual_seed(0)
    module = PretrainModule(PREPROCESSING, encoder=SPEC, local_widths=[8], decoder_width=8, weights=EVERYTHING)
    module.log_dict = lambda *_args, **_kwargs: None
    return module


def finetuning(**settings):
    told = Conditioning(("age", "sex"), "modulate", dropout=0.4)
    return quiet_module(SPEC, dropout=0.3, beat_dropout=0.3, augmentation=STRONG, conditioning=told, **settings)


# In one step ----------------------------------------------------------------------------------------------------------


def seen_in_stage_1(module, rows):
    """What each network of stage 1 is given and says, by record."""
    network, seen = module.network, {}

    def note(name, copies):
        def hook(_module, inputs, output):
            parts = [*inputs, *(output if isinstance(output, tuple) else (output,))]
            flat = [part for value in parts for part in (value if isinstance(value, tuple) else (value,))]
            seen[name] = [(part, copies) for part in flat if isinstance(part, torch.Tensor)]

        return hook

    handles = [network.register_forward_hook(note("restored", 1))]
    handles.append(network.alteration_head.register_forward_hook(note("altered", 2)))
    handles.append(network.beat_network.register_forward_hook(note("altered beats", 8)))
    handles.append(network.beat_restorer.register_forward_hook(note("single beats", 0)))
    module.losses(rows_of(rows), Draws.of(3, 4, rows_of(rows)["index"]))
    for handle in handles:
        handle.remove()
    return seen


def by_record(part, copies, rows):
    """What belongs to each record: ``copies`` of the batch one after the other, or beats of each in their order."""
    with_beats = [row for row in rows if row != 1]  # the second has none
    if copies == 8:
        rows = with_beats
    if copies:
        return {row: part.unflatten(0, (copies, -1))[:, place] for place, row in enumerate(rows)}
    counted = len(part) // max(len(with_beats), 1)
    return {row: part[place * counted : (place + 1) * counted] for place, row in enumerate(with_beats)}


@pytest.mark.parametrize("split", SPLITS, ids=["halves", "shuffled"])
@torch.no_grad()
def test_each_network_of_stage_1_sees_and_says_the_same_of_a_record_in_every_batch(split):
    module = norms_fixed(pretraining())
    whole = seen_in_stage_1(module, WHOLE)
    assert set(whole) == {"restored", "altered", "altered beats", "single beats"}
    for rows in split:
        for name, parts in seen_in_stage_1(module, rows).items():
            for (part, copies), (of_whole, _) in zip(parts, whole[name], strict=True):
                own, expected = by_record(part, copies, rows), by_record(of_whole, copies, WHOLE)
                assert set(own) <= set(expected)
                for row, value in own.items():
                    torch.testing.assert_close(value, expected[row], atol=1e-5, rtol=1e-4, msg=f"{name}, {row}")


@pytest.mark.parametrize("split", SPLITS, ids=["halves", "shuffled"])
@torch.no_grad()
def test_stage_2_sees_and_says_the_same_of_a_record_in_every_batch(split):
    module = norms_fixed(finetuning())

    def diagnosed(rows):
        batch, said = rows_of(rows), []
        module.draws = lambda batch: Draws.of(3, 4, batch["index"])
        handle = module.network.register_forward_hook(
            lambda _module, inputs, found: said.extend([inputs[0], *found[:3]])
        )
        module.training_step(batch, 0)
        handle.remove()
        return said

    whole = diagnosed(WHOLE)
    for rows in split:
        for part, of_whole in zip(diagnosed(rows), whole, strict=True):
            torch.testing.assert_close(part, of_whole[rows], atol=1e-5, rtol=1e-4)


def test_partners_of_mixup_alone_are_of_torch_s_generator():
    module = finetuning(mixup=1.0)
    batch, draws = labelled_batch(RECORDS), Draws.of(3, 4, torch.arange(RECORDS))
    batch["labels"] = torch.eye(RECORDS)
    torch.manual_seed(1)
    _, one = module.showing.augmented(batch, draws.again())
    _, other = module.showing.augmented(batch, draws.again())
    alone = (one == 1).any(dim=1) | (other == 1).any(dim=1)
    assert not torch.equal(one, other)
    torch.testing.assert_close(one.amax(dim=1)[~alone], other.amax(dim=1)[~alone])


# Over steps -----------------------------------------------------------------------------------------------------------


def shown_in_training(tmp_path, module, batch_size, accumulate, rank=0):
    """The global signal that the network was shown of each record in each step, and the weights it ended with."""
    shown = {}

    def note(_module, inputs):
        for index, signal in zip(current["index"].tolist(), inputs[0], strict=True):
            shown[trainer.global_step, index] = signal.detach().clone()

    current, step = {}, module.training_step

    def training_step(batch, batch_idx):
        current.update(batch)
        return step(batch, batch_idx)

    module.training_step = training_step
    module.network.register_forward_pre_hook(note)
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        devices=1,
        max_epochs=2,
        accumulate_grad_batches=accumulate,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
    )
    order = torch.arange(RECORDS) if rank == 0 else torch.arange(RECORDS).flip(0)
    batches = [rows_of(rows.tolist()) for rows in order.split(batch_size)]
    trainer.fit(module, DataLoader(batches, batch_size=None))
    return shown


@pytest.mark.parametrize("make", [pretraining, finetuning], ids=["stage 1", "stage 2"])
def test_a_step_shows_a_record_alike_in_one_batch_in_two_that_are_accumulated_and_on_another_process(
    tmp_path, monkeypatch, make
):
    monkeypatch.setenv("PL_GLOBAL_SEED", "4")
    whole = shown_in_training(tmp_path, make(), RECORDS, 1)
    halves = shown_in_training(tmp_path, make(), RECORDS // 2, 2)
    monkeypatch.setattr(FinetuneModule if make is finetuning else PretrainModule, "global_rank", 1)
    turned = shown_in_training(tmp_path, make(), RECORDS, 1, rank=1)
    assert len(whole) == 2 * RECORDS
    assert whole.keys() == halves.keys() == turned.keys()
    assert all(torch.equal(whole[key], halves[key]) for key in whole)
    assert all(torch.equal(whole[key], turned[key]) for key in whole)
    assert not any(torch.equal(whole[0, row], whole[1, row]) for row in range(RECORDS))
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    other = shown_in_training(tmp_path, make(), RECORDS, 1)
    assert not any(torch.equal(whole[key], other[key]) for key in whole)


# Batches without a beat -----------------------------------------------------------------------------------------------


def calls_of_norms(module, batch):
    """Which norms are called, in order."""
    called = []
    handles = [
        part.register_forward_hook(lambda *_, name=name: called.append(name))
        for name, part in module.named_modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]
    module.training_step(batch, 0).backward()
    for handle in handles:
        handle.remove()
    return called


@pytest.mark.parametrize("make", [pretraining, finetuning], ids=["stage 1", "stage 2"])
def test_a_batch_without_beats_calls_the_same_norms_and_has_the_same_gradients_so_that_processes_can_wait(make):
    module, batch = make(), labelled_batch(RECORDS)
    expected = calls_of_norms(module, batch)
    trained = {name for name, weight in module.named_parameters() if weight.grad is not None}
    module.zero_grad()
    called = calls_of_norms(module, batch | {"beats": torch.full_like(batch["beats"], -1)})
    assert called == expected
    gradients = {name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None}
    assert set(gradients) == trained
    assert all(gradient.isfinite().all() for gradient in gradients.values())
