"""Small problems on which plain training fails a group, for the tests of what is done against it.

A signal has two leads, each a bump of a height that says something, and noise. Plain training, every record as often as
the others, finds what helps most records.
"""

import math

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from data_modules.streaming.training_sampler import TrainingSampler
from ecgfair.ecg import ATTRIBUTES, FEMALE, MALE, Preprocessing
from ecgfair.groups import group_by_demographics
from ecgfair.models.encoder import EncoderSpec
from ecgfair.signals.augmentation import Augmentation
from ecgfair.training import FinetuneModule

TIME = 16
TINY = EncoderSpec(arguments={"widths": [8, 12], "trend_widths": [2, 4], "dropout": 0.0})
UNCHANGED = Augmentation(crop_seconds=None, lead_dropout=0, scaling=0, noise=0)


def batch_of(heights, labels, sex, age, seed, noise=0.1):
    """An EcgBatch of records whose leads have bumps of these heights, (N, 2)."""
    generator = torch.Generator().manual_seed(seed)
    count = len(labels)
    bump = torch.exp(-((torch.arange(TIME) - TIME / 2) ** 2) / 8)
    attributes = torch.full((count, len(ATTRIBUTES)), math.nan)
    attributes[:, ATTRIBUTES.index("age")] = (age - 60) / 15
    attributes[:, ATTRIBUTES.index("sex")] = torch.where(sex < 0, math.nan, sex.float())
    signal = heights[:, :, None] * bump + noise * torch.randn(count, 2, TIME, generator=generator)
    return {
        "signal": signal.float(),
        "recorded": torch.ones(count, 2, TIME, dtype=torch.bool),
        "beats": torch.full((count, 1), -1),
        "attributes": attributes.float(),
        "age": age.float(),
        "sex": sex,
        "labels": labels.float()[:, None],
        "index": torch.arange(count),
    }


def misleading_cue(count=2000, women=0.1, seed=0):
    """Disease shows weakly in lead I, and strongly in lead II: upwards in men, downwards in the few women."""
    generator = torch.Generator().manual_seed(seed)
    sex = torch.where(torch.rand(count, generator=generator) < women, FEMALE, MALE)
    labels = (torch.rand(count, generator=generator) < 0.5).long()
    sign = 2 * labels - 1
    core = 0.7 * sign + torch.randn(count, generator=generator) * 0.7
    cue = sign * torch.where(sex == FEMALE, -1, 1) + torch.randn(count, generator=generator) * 0.7
    return batch_of(torch.stack([core, cue], 1), labels, sex, torch.full((count,), 60.0), seed + 1)


def prevalence_by_sex(count=2000, of_women=0.85, of_men=0.15, seed=0):
    """Disease shows weakly in lead I; lead II says who is a woman, and most women are ill, most men are not."""
    generator = torch.Generator().manual_seed(seed)
    sex = torch.where(torch.rand(count, generator=generator) < 0.5, FEMALE, MALE)
    labels = (torch.rand(count, generator=generator) < torch.where(sex == FEMALE, of_women, of_men)).long()
    core = 0.7 * (2 * labels - 1) + torch.randn(count, generator=generator) * 0.7
    shown = 2.0 * sex - 1 + torch.randn(count, generator=generator) * 0.1
    return batch_of(torch.stack([core, shown], 1), labels, sex, torch.full((count,), 60.0), seed + 1)


def visible_demographics(count=2000, seed=0):
    """Disease shows in lead I; the bump in lead II has the sex as its sign and the age as its height."""
    generator = torch.Generator().manual_seed(seed)
    sex = torch.randint(2, (count,), generator=generator)
    age = 30 + 60 * torch.rand(count, generator=generator)
    labels = (torch.rand(count, generator=generator) < 0.5).long()
    core = 2 * labels - 1 + torch.randn(count, generator=generator) * 0.5
    return batch_of(torch.stack([core, (2 * sex - 1) * age / 60], 1), labels, sex, age, seed + 1, noise=0.3)


class Counts:
    """Counts a batch's records by group, as a data module does."""

    def __init__(self, batch):
        self.batch = batch

    def group_counts(self, attribute, age_edges, *, as_drawn):
        grouping = group_by_demographics(attribute, self.batch["age"], self.batch["sex"], age_edges)
        membership = grouping.membership().double()
        return membership.sum(1), membership @ self.batch["labels"].double()


def module_for(batch, **settings):
    """A small FinetuneModule of one label that has counted the batch's groups."""
    torch.manual_seed(0)
    settings = {"encoder": TINY, "dropout": 0.0, "augmentation": UNCHANGED, "attribute_weight": 0.0} | settings
    preprocessing = Preprocessing(leads=("I", "II"), length=TIME)
    prevalence = [float(batch["labels"].mean())]
    module = FinetuneModule(preprocessing, ["disease"], prevalence, **settings)
    if module.mitigated_loss is not None:
        module.mitigated_loss.count(Counts(batch))
    return module


def train(module, batch, steps=150, size=100, sampling=None, learning_rate=5e-3):
    """Train by a plain loop, records drawn as the data modules draw them."""
    values = batch["attributes"].numpy()
    weights = None if sampling is None else sampling.weights(batch["labels"].numpy().astype(np.uint8), values)
    sampler = TrainingSampler(range(len(batch["index"])), weights=weights)
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=learning_rate)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    module.train()
    done = epoch = 0
    while done < steps:
        sampler.set_epoch(epoch)
        for chosen in torch.from_numpy(sampler.order()).long().split(size)[: steps - done]:
            optimizer.zero_grad()
            module.training_step({name: values[chosen] for name, values in batch.items()}, done).backward()
            optimizer.step()
            cycle.step()
            done += 1
        epoch += 1
    return module.eval()


@torch.no_grad()
def auroc_by_sex(module, batch):
    """AUROC of men and of women."""
    scores = module.predict_step(batch, 0)["probabilities"][:, 0]
    labels, sex = batch["labels"][:, 0], batch["sex"]
    return {
        name: roc_auc_score(labels[sex == code], scores[sex == code])
        for name, code in (("men", MALE), ("women", FEMALE))
    }


@torch.no_grad()
def false_alarms_by_sex(module, batch, threshold=0.5):
    """Share of the healthy men and women with a probability above the threshold."""
    scores = module.predict_step(batch, 0)["probabilities"][:, 0]
    healthy, sex = batch["labels"][:, 0] == 0, batch["sex"]
    alarms = (scores > threshold).float()
    return {name: float(alarms[healthy & (sex == code)].mean()) for name, code in (("men", MALE), ("women", FEMALE))}


@torch.no_grad()
def features_of(module, batch):
    return module(batch["signal"]).features.numpy()
