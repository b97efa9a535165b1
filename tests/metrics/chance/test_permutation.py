"""The permutation test against all permutations of small cases, against chance, and against planted gaps."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ecgfair.metrics.chance.dealing import _places
from ecgfair.metrics.chance.permutation import GapTest, PermutationTest, compared_groups, permutation_test

FIELDS = ("observed", "expected", "upper", "p", "lowest", "highest")


def _people(count: int, labels: int, groups: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores, targets, codes and patients of records that know nothing of their groups; two records a patient."""
    random = torch.Generator().manual_seed(seed)
    targets = (torch.rand(count, labels, generator=random) < 0.4).long()
    scores = torch.randn(count, labels, generator=random) + targets
    patients = torch.arange(count) // 2
    codes = torch.randint(0, groups, (count,), generator=random)[patients]
    return scores, targets, codes, patients


def _supported(targets: Tensor, codes: Tensor, groups: int) -> Tensor:
    """(G, C): both classes are there."""
    members = torch.nn.functional.one_hot(codes, groups).T
    return (members @ targets > 0) & (members @ (1 - targets) > 0)


def _pairs_won(positives: Tensor, negatives: Tensor) -> float:
    """The AUROC from its definition."""
    difference = positives[:, None] - negatives
    return float((difference > 0).double().mean() + (difference == 0).double().mean() / 2)


def _all_gaps(scores: Tensor, positive: Tensor, codes: Tensor) -> Tensor:
    """AUROC gaps of two groups over every way to deal the positives and the negatives to them."""
    classes = [scores[positive], scores[~positive]]
    sizes = [int((codes[of] == 0).sum()) for of in (positive, ~positive)]
    ways = [list(combinations(range(len(of)), size)) for of, size in zip(classes, sizes, strict=True)]
    gaps = []
    for first_positives in ways[0]:
        for first_negatives in ways[1]:
            inside = []
            for of, chosen in zip(classes, (first_positives, first_negatives), strict=True):
                mask = torch.zeros(len(of), dtype=torch.bool)
                mask[list(chosen)] = True
                inside.append(mask)
            one = _pairs_won(classes[0][inside[0]], classes[1][inside[1]])
            other = _pairs_won(classes[0][~inside[0]], classes[1][~inside[1]])
            gaps.append(abs(one - other))
    return torch.tensor(gaps, dtype=torch.float64)


def _same(left: PermutationTest, right: PermutationTest) -> bool:
    return all(
        torch.equal(getattr(one[name], field).nan_to_num(-2), getattr(other[name], field).nan_to_num(-2))
        for one, other in ((left.labels, right.labels), (left.macro, right.macro))
        for name in one
        for field in FIELDS
    )


@pytest.mark.parametrize("levels", [100, 4])
def test_p_and_the_expected_gap_are_those_of_all_permutations(levels: int) -> None:
    """Eleven records of a patient each, with ties and without: 4,000 permutations come near to all 350 of them."""
    random = torch.Generator().manual_seed(levels)
    positive = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]) == 1
    codes = torch.tensor([0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 1])
    scores = torch.randint(0, levels, (11,), generator=random).double() + positive
    exact = _all_gaps(scores, positive, codes)
    observed = abs(
        _pairs_won(scores[positive & (codes == 0)], scores[~positive & (codes == 0)])
        - _pairs_won(scores[positive & (codes == 1)], scores[~positive & (codes == 1)])
    )
    found = permutation_test(
        scores[:, None],
        positive[:, None],
        codes,
        2,
        torch.arange(11),
        eligible=torch.ones(2, 1, dtype=torch.bool),
        permutations=4000,
        align=False,
    ).labels["auroc"]
    assert float(found.observed) == pytest.approx(observed, abs=1e-12)
    assert float(found.p) == pytest.approx(float((exact >= observed - 1e-9).double().mean()), abs=0.04)
    assert float(found.expected) == pytest.approx(float(exact.mean()), abs=0.015)
    assert float(found.upper) == pytest.approx(float(exact.quantile(0.95)), abs=0.06)


@pytest.mark.parametrize("align", [True, False])
@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(4, 120),
    groups=st.integers(2, 9),
    levels=st.sampled_from([1, 3, 999]),
)
def test_the_gap_seen_is_that_of_scikit_learn_in_each_group(
    align: bool, seed: int, count: int, groups: int, levels: int
) -> None:
    """With ties, constant scores, groups of a record; aligning scores changes no group's AUROC."""
    scores, targets, codes, patients = _people(count, 3, groups, seed)
    scores = (scores * levels).round().clamp(-levels, levels) if levels < 999 else scores
    eligible = _supported(targets, codes, groups)
    found = permutation_test(
        scores, targets, codes, groups, patients, eligible=eligible, permutations=2, align=align
    ).labels["auroc"]
    for label in range(3):
        at = eligible[:, label].nonzero()[:, 0].tolist()
        if len(at) < 2:
            assert found.observed[label].isnan()
            assert found.p[label].isnan()
            assert found.lowest[label] == found.highest[label] == -1
            continue
        values = {g: roc_auc_score(targets[codes == g, label], scores[codes == g, label]) for g in at}
        spread = max(values.values()) - min(values.values())
        assert float(found.observed[label]) == pytest.approx(spread, abs=1e-12)
        assert values[int(found.highest[label])] - values[int(found.lowest[label])] == pytest.approx(spread, abs=1e-12)


def test_gaps_in_rates_are_those_between_shares_of_predictions() -> None:
    """TPR over positives, FPR over negatives; the group that is not eligible has no part."""
    scores, targets, codes, patients = _people(300, 2, 4, 0)
    predictions = scores > 0.5
    eligible = torch.ones(4, 2, dtype=torch.bool)
    eligible[3] = False
    found = permutation_test(
        scores, targets, codes, 4, patients, eligible=eligible, predictions=predictions, permutations=5
    )
    for name, of_class in (("tpr", 1), ("fpr", 0)):
        rates = torch.stack(
            [
                torch.stack(
                    [predictions[(codes == g) & (targets[:, c] == of_class), c].double().mean() for c in range(2)]
                )
                for g in range(3)
            ]
        )
        torch.testing.assert_close(found.labels[name].observed, rates.amax(0) - rates.amin(0))
        assert torch.equal(found.labels[name].highest, rates.argmax(0))
        mean = rates.mean(1)
        torch.testing.assert_close(found.macro[name].observed[0], mean.max() - mean.min())
        assert int(found.macro[name].lowest) == int(mean.argmin())


def test_a_label_without_a_threshold_has_no_rates_and_is_left_out_of_their_mean() -> None:
    """Its AUROC is tested all the same."""
    scores, targets, codes, patients = _people(200, 2, 2, 1)
    predictions = (scores > 0.5).double()
    predictions[:, 1] = torch.nan
    eligible = torch.ones(2, 2, dtype=torch.bool)
    found = permutation_test(
        scores, targets, codes, 2, patients, eligible=eligible, predictions=predictions, permutations=9
    )
    assert found.labels["tpr"].p.isnan().tolist() == found.labels["fpr"].observed.isnan().tolist() == [False, True]
    assert not found.labels["auroc"].p.isnan().any()
    assert torch.equal(found.macro["tpr"].observed, found.labels["tpr"].observed[:1])


def test_true_nulls_are_rejected_about_as_often_as_the_level_says() -> None:
    """Two records a patient, three groups, 60 data sets of 5 labels: 10 % of 300 tests, within four standard errors."""
    found: list[GapTest] = []
    for seed in range(60):
        scores, targets, codes, patients = _people(150, 5, 3, seed)
        of_patient = torch.randn(75, 5, generator=torch.Generator().manual_seed(seed))[patients]
        eligible = torch.ones(3, 5, dtype=torch.bool)
        test = permutation_test(
            scores + of_patient,
            targets,
            codes,
            3,
            patients,
            eligible=eligible,
            predictions=scores > 0.5,
            permutations=99,
            seed=seed,
        )
        found += test.labels.values()
    for at in range(3):
        p = torch.cat([test.p for test in found[at::3]])
        assert 0.03 < float((p <= 0.1).double().mean()) < 0.17
        assert 0.38 < float((p <= 0.5).double().mean()) < 0.62


def test_records_of_a_patient_are_no_independent_evidence() -> None:
    """Ten copies of every record make gaps no rarer, but would if records were dealt out one by one."""
    scores, targets, codes, _ = _people(40, 1, 2, 3)
    copies = torch.arange(40).repeat_interleave(10)
    eligible = torch.ones(2, 1, dtype=torch.bool)
    once = permutation_test(scores, targets, codes, 2, torch.arange(40), eligible=eligible, permutations=400)
    again, records = (
        permutation_test(
            scores[copies], targets[copies], codes[copies], 2, patients, eligible=eligible, permutations=400
        )
        for patients in (copies, torch.arange(400))
    )
    assert float(again.labels["auroc"].observed) == pytest.approx(float(once.labels["auroc"].observed), abs=1e-12)
    assert float(again.labels["auroc"].expected) == pytest.approx(float(once.labels["auroc"].expected), rel=0.15)
    assert float(records.labels["auroc"].expected) < 0.5 * float(once.labels["auroc"].expected)


def test_a_planted_gap_is_found_where_it_is() -> None:
    """Group 2 is told nothing in label 1; label 0 is told alike in all groups."""
    scores, targets, codes, patients = _people(1200, 2, 3, 7)
    blind = codes == 2
    scores[blind, 1] = torch.randn(int(blind.sum()), generator=torch.Generator().manual_seed(1))
    found = permutation_test(
        scores, targets, codes, 3, patients, eligible=torch.ones(3, 2, dtype=torch.bool), permutations=199
    )
    of_labels, of_mean = found.labels["auroc"], found.macro["auroc"]
    assert float(of_labels.p[1]) == float(of_mean.p) == 1 / 200
    assert float(of_labels.p[0]) > 0.05
    assert int(of_labels.lowest[1]) == int(of_mean.lowest) == 2
    assert float(of_labels.expected[1]) < float(of_labels.upper[1]) < float(of_labels.observed[1])


def test_scores_that_are_higher_throughout_a_group_are_no_gap() -> None:
    """Aligned, the null is the one without the shift; without aligning it is that of two populations mixed."""
    scores, targets, codes, patients = _people(600, 1, 2, 2)
    shifted = scores + 20 * codes[:, None]
    eligible = torch.ones(2, 1, dtype=torch.bool)
    plain = permutation_test(scores, targets, codes, 2, patients, eligible=eligible).labels["auroc"]
    aligned = permutation_test(shifted, targets, codes, 2, patients, eligible=eligible).labels["auroc"]
    mixed = permutation_test(shifted, targets, codes, 2, patients, eligible=eligible, align=False).labels["auroc"]
    assert _same_gap(plain, aligned)
    assert float(mixed.expected) > 1.1 * float(plain.expected)


def _same_gap(left: GapTest, right: GapTest) -> bool:
    return all(torch.equal(getattr(left, field), getattr(right, field)) for field in FIELDS)


def test_the_same_seed_gives_the_same_test_whatever_the_size_of_a_chunk() -> None:
    """And another seed another one."""
    scores, targets, codes, patients = _people(80, 3, 3, 4)
    eligible = torch.ones(3, 3, dtype=torch.bool)
    tests = [
        permutation_test(
            scores,
            targets,
            codes,
            3,
            patients,
            eligible=eligible,
            predictions=scores > 0,
            permutations=50,
            seed=seed,
            chunk_elements=chunk,
        )
        for seed, chunk in ((0, 2**19), (0, 100), (0, 1), (1, 2**19))
    ]
    assert _same(tests[0], tests[1])
    assert _same(tests[0], tests[2])
    assert not _same(tests[0], tests[3])


def test_nothing_is_tested_with_one_group_or_no_label_or_no_record() -> None:
    """NaN and -1, not an error."""
    scores, targets, codes, patients = _people(30, 2, 1, 0)
    one = permutation_test(scores, targets, codes, 1, patients, eligible=torch.ones(1, 2, dtype=torch.bool))
    none = permutation_test(
        scores[:0], targets[:0], codes[:0], 3, patients[:0], eligible=torch.zeros(3, 2, dtype=torch.bool)
    )
    no_label = permutation_test(
        scores[:, :0], targets[:, :0], codes, 2, patients, eligible=torch.ones(2, 0, dtype=torch.bool)
    )
    assert no_label.labels["auroc"].p.shape == (0,)
    for test in (one, none, no_label):
        assert test.macro["auroc"].p.isnan().all()
        assert test.macro["auroc"].lowest.tolist() == [-1]
        for field in ("observed", "expected", "upper", "p"):
            assert getattr(test.labels["auroc"], field).isnan().all()
        assert not test.compared.any()
        assert not test.shared.any()


def test_a_group_of_one_patient_is_no_evidence_against_chance() -> None:
    """Its records are dealt out together like those of anybody: the p-value is not small, however many they are."""
    random = torch.Generator().manual_seed(0)
    patients = torch.arange(20).repeat_interleave(20)
    targets = (torch.arange(400) % 2)[:, None]
    quality = torch.randn(20, generator=random)[patients][:, None]
    scores = targets * quality + 0.1 * torch.randn(400, 1, generator=random)
    codes = (patients == int(quality[::20].argmin())).long()  # the patient who is served worst
    found = permutation_test(
        scores, targets, codes, 2, patients, eligible=torch.ones(2, 1, dtype=torch.bool), permutations=999, align=False
    ).labels["auroc"]
    assert 0.02 < float(found.p) < 0.2


def test_a_patient_comes_to_one_group_with_nearly_all_records() -> None:
    """Copies of a label, one of them turned round: positives and negatives of the same patients are dealt alike."""
    scores, targets, codes, _ = _people(400, 1, 4, 9)
    patients = torch.arange(400)
    both, turned = torch.cat([scores, -scores], 1), torch.cat([targets, 1 - targets], 1)
    found = permutation_test(both, turned, codes, 4, patients, eligible=torch.ones(4, 2, dtype=torch.bool), align=False)
    label, mean = found.labels["auroc"], found.macro["auroc"]
    assert float(label.observed[0]) == pytest.approx(float(mean.observed), abs=1e-12)
    # Dealt independently of each other, the gaps of the mean would be smaller by the root of two.
    assert float(mean.expected) == pytest.approx(float(label.expected[0]), rel=0.02)


def test_every_group_keeps_its_numbers_and_its_stretch_of_the_order() -> None:
    """A class of which a group has less leaves the rest of its stretch to those that have more."""
    share = torch.tensor([0.5, 0.3, 0.0, 0.2], dtype=torch.float64)
    assert _places(torch.tensor([5, 3, 0, 2]), share).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 3, 3]
    assert _places(torch.tensor([2, 5, 1, 2]), share).tolist() == [0, 0, 1, 1, 2, 1, 1, 1, 3, 3]
    random = torch.Generator().manual_seed(0)
    for _ in range(50):
        counts = torch.randint(0, 9, (5,), generator=random)
        some = torch.rand(5, generator=random, dtype=torch.float64)
        assert torch.equal(_places(counts, some / some.sum()).bincount(minlength=5), counts)


def test_groups_with_few_labels_do_not_decide_by_which_labels_the_others_are_compared() -> None:
    """Supports choose: most groups times most shared labels."""
    eligible = torch.zeros(4, 10, dtype=torch.bool)
    eligible[0], eligible[1, :9], eligible[2, 1:] = True, True, True
    eligible[3, 0] = True
    compared, shared = compared_groups(eligible)
    assert compared.tolist() == [True, True, True, False]
    assert shared.nonzero()[:, 0].tolist() == list(range(1, 9))
    for impossible in (torch.eye(3, dtype=torch.bool), torch.zeros(3, 2, dtype=torch.bool)):
        assert not torch.cat(compared_groups(impossible)).any()


def test_many_groups_and_large_ones_are_counted_apart() -> None:
    """More counts than fit into a machine word: sums stay those of each group alone."""
    groups = 24
    scores, targets, codes, patients = _people(9000, 1, groups, 5)
    found = permutation_test(
        scores, targets, codes, groups, patients, eligible=torch.ones(groups, 1, dtype=torch.bool), permutations=1
    ).labels["auroc"]
    values = [roc_auc_score(targets[codes == g, 0], scores[codes == g, 0]) for g in range(groups)]
    assert float(found.observed) == pytest.approx(max(values) - min(values), abs=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"permutations": 0}, "permutations is 0: expected at least 1"),
        ({"scores": torch.full((6, 1), torch.nan)}, "6 scores of groups to compare are NaN"),
        ({"targets": torch.full((6, 1), 2)}, "6 targets of groups to compare are neither 0 nor 1"),
        ({"targets": torch.tensor([[0], [1], [0], [0], [0], [0]])}, "1 groups and labels without a positive record"),
        ({"codes": torch.tensor([0, 0, 0, 1, 1, 2])}, "codes go from 0 to 2: expected 0 to 1"),
        ({"patients": torch.arange(5)}, r"patients has the shape \(5,\): expected \(6,\)"),
        ({"eligible": torch.ones(1, 2, dtype=torch.bool)}, r"eligible has the shape \(1, 2\): expected \(2, 1\)"),
        ({"scores": torch.zeros(6)}, "for scores of the shape"),
    ],
)
def test_what_would_give_p_values_without_a_meaning_is_refused(change: dict[str, object], message: str) -> None:
    """With what was found and what was expected."""
    valid: dict[str, object] = {
        "scores": torch.arange(6.0)[:, None],
        "targets": torch.tensor([[0], [1], [0], [1], [0], [1]]),
        "codes": torch.tensor([0, 0, 0, 1, 1, 1]),
        "groups": 2,
        "patients": torch.arange(6),
        "eligible": torch.ones(2, 1, dtype=torch.bool),
    }
    with pytest.raises(ValueError, match=message):
        permutation_test(**{**valid, **change})  # type: ignore[arg-type]
