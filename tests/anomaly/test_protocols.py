import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfair.anomaly.protocols import CORRECTED, KINDS, PROTOCOLS, PUBLISHED, Protocol, in_words, protocol_named, select
from ecgfair.errors import ConfigurationError
from tests.anomaly.anomaly_cases import NAMES, rows

FREE = settings(deadline=None)  # other work on the machine is no failure


def kinds(protocol, *texts, names=NAMES, has_beat=None):
    has_beat = torch.ones(len(texts), dtype=torch.bool) if has_beat is None else torch.tensor(has_beat)
    found = select(protocol, rows(*texts, names=names), names, torch.ones(len(texts), dtype=torch.int64), has_beat)
    return [KINDS[code] for code in found.kind.tolist()]


def test_in_the_corrected_protocol_normal_is_the_normal_label_alone_and_mixed_records_are_neither():
    found = kinds(CORRECTED, "NORM", "MI", "MI+CD", "NORM+STTC", "NORM+CD", "")
    mixed = "normal and another label"
    assert found == ["normal", "abnormal", "abnormal", mixed, mixed, "no label"]


def test_in_the_published_protocol_a_mixed_record_is_what_its_first_label_by_name_says():
    found = kinds(PUBLISHED, "NORM", "MI", "NORM+STTC", "NORM+CD", "NORM+CD+STTC", "")
    assert found == ["normal", "abnormal", "normal", "abnormal", "abnormal", "no label"]


@FREE
@given(st.permutations(NAMES))
def test_what_a_record_is_does_not_depend_on_the_order_of_the_labels(names):
    texts = ["NORM", "HYP", "NORM+STTC", "NORM+MI", "MI+STTC", ""]
    for protocol in PROTOCOLS.values():
        assert kinds(protocol, *texts, names=tuple(names)) == kinds(protocol, *texts)


def test_records_without_a_beat_are_dropped_by_the_published_protocol_alone():
    beats = [True, False, False]
    assert kinds(PUBLISHED, "NORM", "NORM", "MI", has_beat=beats) == ["normal", "no beat", "no beat"]
    assert kinds(CORRECTED, "NORM", "NORM", "MI", has_beat=beats) == ["normal", "normal", "abnormal"]


def test_parts_hold_normals_to_train_on_and_both_kinds_to_choose_and_test_on():
    texts = ["NORM", "MI", "NORM+MI"] * 3 + [""]
    folds = torch.tensor([1, 1, 1, 9, 9, 9, 10, 10, 10, 10])
    found = select(CORRECTED, rows(*texts), NAMES, folds)
    assert found.train.nonzero()[:, 0].tolist() == [0]
    assert found.choose.nonzero()[:, 0].tolist() == [3, 4]
    assert found.test.nonzero()[:, 0].tolist() == [6, 7]
    published = select(PUBLISHED, rows(*texts), NAMES, folds, torch.ones(10, dtype=torch.bool))
    assert published.train.nonzero()[:, 0].tolist() == [0, 3]
    assert published.choose.tolist() == published.test.tolist()
    assert published.test.nonzero()[:, 0].tolist() == [6, 7, 8]  # NORM+MI: MI comes first by name


def test_what_is_left_out_is_counted_listed_and_said():
    texts = ["NORM", "MI", "NORM+MI", "", "NORM+STTC", "NORM"]
    folds = torch.tensor([10, 10, 10, 10, 10, 3])
    found = select(CORRECTED, rows(*texts), NAMES, folds)
    assert found.counts("test") == {
        "normal": 1,
        "abnormal": 1,
        "normal and another label": 2,
        "no label": 1,
        "no beat": 0,
    }
    listed = found.left_out("test")
    assert listed["normal and another label"].tolist() == [2, 4]
    assert listed["no label"].tolist() == [3]
    text = "\n".join(found.lines())
    assert "corrected protocol" in text
    assert "test: 1 normal and 1 abnormal records; left out: 2 normal and another label, 1 no label." in text
    assert "train: 1 normal records." in text


def test_the_published_protocol_says_how_it_took_mixed_records_and_that_it_chooses_on_the_test_fold():
    found = select(
        PUBLISHED,
        rows("NORM+STTC", "NORM+CD", "NORM+MI"),
        NAMES,
        torch.tensor([10, 10, 10]),
        torch.ones(3, dtype=torch.bool),
    )
    text = "\n".join(found.lines())
    assert "3 records have the normal label and another one" in text
    assert "1 count as normal and 2 as abnormal" in text
    assert "chosen and tested on fold 10" in text
    assert PUBLISHED.chooses_on_test
    assert not CORRECTED.chooses_on_test


def test_records_of_no_fold_are_in_no_part_and_counted():
    found = select(CORRECTED, rows("NORM", "MI"), NAMES, torch.tensor([-1, 10]))
    assert not (found.train | found.choose | found.test)[0]
    assert "1 records are of no fold of this protocol." in found.lines()


@FREE
@given(st.lists(st.tuples(st.lists(st.booleans(), min_size=5, max_size=5), st.integers(-1, 11)), max_size=20))
def test_every_record_of_a_part_is_normal_abnormal_or_listed_as_left_out(records):
    labels = torch.tensor([label for label, _ in records], dtype=torch.int64).reshape(-1, 5)
    folds = torch.tensor([fold for _, fold in records], dtype=torch.int64)
    for protocol in PROTOCOLS.values():
        found = select(protocol, labels, NAMES, folds, torch.ones(len(folds), dtype=torch.bool))
        out = torch.cat([*found.left_out("test").values(), found.test.nonzero()[:, 0]])
        assert sorted(out.tolist()) == found.in_folds_of("test").nonzero()[:, 0].tolist()
        assert not (found.train & found.test).any()
        assert not (found.normal & found.abnormal).any()
        assert sum(found.counts("test").values()) == len(out)


def test_the_normal_label_can_be_another_one():
    found = select(
        CORRECTED,
        rows("sinus", "flutter", names=("sinus", "flutter")),
        ("sinus", "flutter"),
        torch.tensor([10, 10]),
        normal_label="sinus",
    )
    assert found.normal.tolist() == [True, False]
    assert found.abnormal.tolist() == [False, True]


def test_a_label_set_without_the_normal_label_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigurationError, match=r"'NORM'.*Did you mean 'NORMAL'"):
        select(CORRECTED, torch.zeros(1, 2), ("NORMAL", "MI"), torch.tensor([1]))


def test_beats_are_asked_for_where_the_protocol_needs_them():
    with pytest.raises(ConfigurationError, match="has_beat is not given"):
        select(PUBLISHED, rows("NORM"), NAMES, torch.tensor([1]))


@pytest.mark.parametrize(
    ("labels", "folds", "has_beat", "said"),
    [
        (torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64), None, "5 label names"),
        (torch.zeros(2, 5), torch.zeros(3, dtype=torch.int64), None, "folds is"),
        (torch.zeros(2, 5), torch.zeros(2), None, "folds is"),
        (torch.zeros(2, 5), torch.zeros(2, dtype=torch.int64), torch.ones(2, dtype=torch.int64), "has_beat is"),
        (torch.full((2, 5), 0.5), torch.zeros(2, dtype=torch.int64), None, "10 of 10 labels are neither 0 nor 1"),
        (torch.full((2, 5), torch.nan), torch.zeros(2, dtype=torch.int64), None, "neither 0 nor 1"),
    ],
)
def test_what_is_not_one_of_each_for_every_record_is_refused(labels, folds, has_beat, said):
    with pytest.raises(ValueError, match=said):
        select(CORRECTED, labels, NAMES, folds, has_beat)


def test_a_protocol_that_trains_on_what_it_tests_on_or_has_no_test_is_refused():
    with pytest.raises(ConfigurationError, match=r"trains on the folds \[2\]"):
        Protocol("mine", (1, 2), (3,), (2,), "neither", False, "")
    with pytest.raises(ConfigurationError, match="no fold to test"):
        Protocol("mine", (1, 2), (3,), (), "neither", False, "")
    with pytest.raises(ConfigurationError, match="Did you mean 'neither'"):
        Protocol("mine", (1, 2), (3,), (4,), "neiter", False, "")


def test_protocols_are_found_by_name_and_folds_written_as_people_do():
    assert protocol_named("corrected") is CORRECTED
    with pytest.raises(ConfigurationError, match="Did you mean 'published'"):
        protocol_named("publishd")
    assert [in_words(folds) for folds in ((9,), (3, 1, 2), (1, 3), (1, 2))] == [
        "fold 9",
        "folds 1-3",
        "folds 1, 3",
        "folds 1, 2",
    ]
