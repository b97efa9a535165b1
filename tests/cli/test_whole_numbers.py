"""What is written as a whole number is one, whatever was imported before."""

# ruff: noqa: UP007, UP045  # the old spelling is the one with the trap

from typing import Optional, Union, get_args

import pytest
from jsonargparse import ArgumentParser

from ecgfair.__main__ import main
from ecgfair.cli.whole_numbers import whole_numbers_first


def test_typing_forgets_the_order_and_it_is_put_right():
    other = Optional[Union[float, int, bytes]]

    def function(number: Optional[Union[int, float, bytes]] = None, text: str = ""):
        pass

    assert get_args(other)[:2] == (float, int)
    assert get_args(function.__annotations__["number"])[:2] == (float, int), "the trap is gone; so may the mending be"
    whole_numbers_first(function)
    assert get_args(function.__annotations__["number"]) == (int, float, bytes, type(None))
    assert function.__annotations__["text"] is str


def test_a_parser_reads_1_as_a_whole_number_and_a_half_as_none():
    class Limits:
        def __init__(self, number: Optional[Union[float, int]] = None):
            self.number = number

    for told, read in (("1", 1), ("0.5", 0.5), ("1.0", 1.0), ("null", None)):
        whole_numbers_first(Limits.__init__)
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(Limits)
        number = parser.parse_args([f"--number={told}"]).number
        assert (number, type(number)) == (read, type(read))


@pytest.mark.parametrize("limit", ["limit_train_batches", "limit_val_batches", "overfit_batches", "val_check_interval"])
def test_one_batch_is_one_batch_though_another_library_turned_the_order_of_the_types(limit, capsys):
    # The fixtures of these tests import neurokit2, which does, before Lightning.
    with pytest.raises(SystemExit):
        main(["fit", "--config", "experiments/smoke/pretrain.yaml", f"--trainer.{limit}=1", "--print_config"])
    assert f"  {limit}: 1\n" in capsys.readouterr().out
