"""What tells the data of a data module from others: a text a store."""

from data_modules.streaming.datamodules import EcgDataModule
from data_modules.streaming.mixture import MixtureDataModule
from tests.data_modules.streamed_store import stream_store


def test_records_of_a_published_database_are_the_same_data_however_they_are_prepared(tmp_path):
    stores = [stream_store(tmp_path / str(count), count, "PTB-XL") for count in (30, 40)]
    assert {EcgDataModule(store).data_identity for store in stores} == {("PTB-XL",)}


def test_stores_of_a_source_that_may_hold_anybody_differ_with_their_content(tmp_path):
    one, other = (stream_store(tmp_path / str(count), count, "WFDB folder") for count in (30, 40))
    again = stream_store(tmp_path / "again", 30, "WFDB folder")
    assert EcgDataModule(one).data_identity == EcgDataModule(again).data_identity
    assert EcgDataModule(one).data_identity != EcgDataModule(other).data_identity


def test_a_mixture_is_of_the_data_of_each_of_its_stores(tmp_path):
    one, other = (stream_store(tmp_path / str(count), count, "WFDB folder") for count in (30, 40))
    expected = EcgDataModule(one).data_identity + EcgDataModule(other).data_identity
    assert MixtureDataModule([one, other]).data_identity == expected
