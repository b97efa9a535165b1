"""A label's records dealt out to groups anew, many times at once: what each group's AUROC and rates then are.

Positive records are dealt among the positive ones, negative records among the negative ones, so every group keeps its
numbers of both. Records are dealt by patient: a random key each, and the records in the order of their patients' keys
fill places that belong to the groups.

Where a group's places lie matters to patients with a positive and a negative record, or with several labels. They
should come to the same group with all of them, or what their records have in common would look like chance differences
between groups. So every group has one stretch of the order, as long as its share of the records, the same for all
labels and both classes. If it has less of a class, the rest of its stretch is left to the groups that have more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

_WORD: Final = 62
"""Bits of an int64 that counts are packed into."""


@dataclass(frozen=True, eq=False)
class DealtLabel:
    """One label's records in the groups compared, in the order in which their pairs are counted.

    The counts of several groups share an int64, each in bits of its own, so that one running sum over the negatives
    serves all of them.

    Args:
        positives: (P,) positions of the positive records.
        negatives: (M,) positions of the negative records, by rising score.
        below: (P,) for each positive, how many negatives score lower.
        up_to: (P,) likewise, how many score lower or the same.
        predicted_positives: Which of the P positives are predicted positive, as positions among them.
        predicted_negatives: Likewise which of the M negatives.
        positive_places: (P,) int64, the group of each place of a positive, in the order of the keys.
        negative_places: (M,) int64, likewise of a negative.
        pairs: (G,) float64, twice the pairs of a positive and a negative; NaN for a group not compared.
        counts: (2, G) float64, positives and negatives; NaN likewise.
        packed: (words, G) int64, what a negative of the group adds to a word; 0 if it is counted in another word.
        shift: (G,) int64, where a group's count begins in its word.
        mask: (words, G) int64, the bits of the count, shifted to the right; 0 in other words.
    """

    positives: Tensor
    negatives: Tensor
    below: Tensor
    up_to: Tensor
    predicted_positives: Tensor
    predicted_negatives: Tensor
    positive_places: Tensor
    negative_places: Tensor
    pairs: Tensor
    counts: Tensor
    packed: Tensor
    shift: Tensor
    mask: Tensor

    @classmethod
    def of(cls, scores: Tensor, positive: Tensor, predicted: Tensor, codes: Tensor, compared: Tensor) -> DealtLabel:
        """Prepare a label.

        Args:
            scores: (N,) real numbers; only their order counts.
            positive: (N,) bool.
            predicted: (N,) bool, whether the record is predicted positive.
            codes: (N,) int64 group of each record.
            compared: (G,) bool, the groups that take part, each with positive and negative records.
        """
        takes_part = compared[codes]
        positives = (takes_part & positive).nonzero()[:, 0]
        negatives = (takes_part & ~positive).nonzero()[:, 0]
        ranked, order = scores[negatives].sort(stable=True)
        negatives, threshold = negatives[order], scores[positives].contiguous()
        counts = torch.stack([codes[of].bincount(minlength=len(compared)) for of in (positives, negatives)])
        share = codes.bincount(minlength=len(compared)).double() / max(1, len(codes))
        some = counts.double().masked_fill(~compared, torch.nan)
        return cls(
            positives,
            negatives,
            torch.searchsorted(ranked, threshold),
            torch.searchsorted(ranked, threshold, right=True),
            predicted[positives].nonzero()[:, 0],
            predicted[negatives].nonzero()[:, 0],
            _places(counts[0], share),
            _places(counts[1], share),
            2 * some[0] * some[1],
            some,
            *_layout(counts[1]),
        )

    def as_they_are(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the groups of the positives (1, P) and of the negatives (1, M) as recorded in ``codes`` (N,)."""
        return codes[self.positives][None], codes[self.negatives][None]

    def dealt(self, order: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Return the groups of the positives (B, P) and of the negatives (B, M) in B orders of the records.

        Args:
            order: (B, N) int64 positions of the records, each row a permutation.
            place: (B, N) int64, its inverse: where each record stands.
        """
        # One running count for both classes: negatives in the lower half of the word, positives in the upper one.
        kind = torch.zeros(order.shape[1], dtype=torch.int64, device=order.device)
        kind[self.negatives] = 1
        kind[self.positives] = 1 << 32
        count = kind[order].cumsum(1)
        rank_positive = (count.gather(1, place[:, self.positives]) >> 32) - 1
        rank_negative = (count.gather(1, place[:, self.negatives]) & 0xFFFFFFFF) - 1
        return self.positive_places[rank_positive], self.negative_places[rank_negative]

    def aurocs(self, of_positives: Tensor, of_negatives: Tensor) -> Tensor:
        """Return the AUROC of each group, (B, G) float64, ties counting one half.

        Args:
            of_positives: (B, P) int64 groups of the positives.
            of_negatives: (B, M) int64 groups of the negatives.
        """
        shift = self.shift[of_positives]
        won = torch.zeros_like(of_positives)
        passed = of_negatives.new_zeros(len(of_negatives), len(self.negatives) + 1)
        for packed, mask in zip(self.packed, self.mask, strict=True):
            torch.cumsum(packed[of_negatives], 1, out=passed[:, 1:])
            own = mask[of_positives]
            won += ((passed[:, self.below] >> shift) & own) + ((passed[:, self.up_to] >> shift) & own)
        area = won.new_zeros(len(won), len(self.pairs)).scatter_add_(1, of_positives, won)
        return area / self.pairs

    def rates(self, of_positives: Tensor, of_negatives: Tensor) -> tuple[Tensor, Tensor]:
        """Return the TPR and the FPR of each group, (B, G) float64 each; arguments as of ``aurocs``."""
        true = self._counted(of_positives[:, self.predicted_positives])
        false = self._counted(of_negatives[:, self.predicted_negatives])
        return true / self.counts[0], false / self.counts[1]

    def _counted(self, codes: Tensor) -> Tensor:
        """Count the records of each group, (B, G), from their groups (B, any)."""
        return codes.new_zeros(len(codes), len(self.pairs)).scatter_add_(1, codes, torch.ones_like(codes))


def aligned_scores(scores: Tensor, positive: Tensor, codes: Tensor, groups: int) -> Tensor:
    """Replace a label's scores by their places among the negatives of their own group, between 0 and 1.

    Within a group the order stays, ties of a positive with a negative included; between groups, the negatives come to
    be distributed alike.

    Args:
        scores: (N,) real numbers.
        positive: (N,) bool.
        codes: (N,) int64 group of each record.
        groups: Number of groups.
    """
    aligned = torch.empty_like(scores)
    for group in range(groups):
        members = (codes == group).nonzero()[:, 0]
        of_group = scores[members]
        negatives = of_group[~positive[members]].sort().values
        lower = torch.searchsorted(negatives, of_group)
        up_to = torch.searchsorted(negatives, of_group, right=True)
        aligned[members] = (lower + up_to + 1).double() / (2 * (len(negatives) + 1))
    return aligned


def random_orders(
    patients: Tensor, permutations: int, seed: int, chunk_elements: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield records in random orders, a patient's together, and where each record stands: (B, N) int64 each.

    Args:
        patients: (N,) any number a patient.
        permutations: How many, over all chunks.
        seed: Gives the same orders on every device and with every size of chunk.
        chunk_elements: Bounds B times N.
    """
    distinct, own = torch.unique(patients, return_inverse=True)
    generator = torch.Generator().manual_seed(seed)
    rows = max(1, chunk_elements // max(1, len(patients)))
    for first in range(0, permutations, rows):
        count = min(rows, permutations - first)
        keys = torch.stack([torch.rand(len(distinct), generator=generator, dtype=torch.float64) for _ in range(count)])
        order = keys.to(patients.device)[:, own].argsort(dim=1, stable=True)
        standing = torch.arange(len(patients), device=order.device).expand(count, -1)
        yield order, torch.empty_like(order).scatter_(1, order, standing)


def _places(counts: Tensor, share: Tensor) -> Tensor:
    """Return the group of each place of a class, ``counts`` (G,) places a group, from stretches as ``share`` (G,)."""
    ends = (share.cumsum(0) * counts.sum()).round().long()
    stretch = ends.diff(prepend=ends.new_zeros(1))
    at_home = torch.minimum(stretch, counts)
    groups = torch.arange(len(counts), device=counts.device)
    elsewhere = torch.repeat_interleave(groups, counts - at_home)
    # The stretches without an owner, in their order, go to the groups that need more, in theirs.
    places = torch.repeat_interleave(groups, stretch)
    within = torch.arange(len(places), device=counts.device) - (ends - stretch)[places]
    places[within >= at_home[places]] = elsewhere
    return places


def _layout(sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pack counts up to ``sizes`` (G,) into as few words as will do; see ``DealtLabel`` for what is returned."""
    bits = [int(size).bit_length() for size in sizes.tolist()]
    words, used = [], []
    word = at = 0
    for width in bits:
        if at + width > _WORD:
            word, at = word + 1, 0
        words.append(word)
        used.append(at)
        at += width
    shift, widths = torch.tensor(used), torch.tensor(bits)
    in_word = torch.tensor(words) == torch.arange(word + 1)[:, None]
    one = torch.ones_like(shift)
    packed, mask = in_word * (one << shift), in_word * ((one << widths) - 1)
    return packed.to(sizes.device), shift.to(sizes.device), mask.to(sizes.device)
