"""Run folders of both stages, trained once for all tests of the command line."""

import pytest

from tests.cli.driving import fit


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory, synthetic_store):
    """The run folder of a tiny stage 1."""
    run = tmp_path_factory.mktemp("runs") / "pretrain"
    assert fit("experiments/smoke/pretrain.yaml", run, synthetic_store) == 0
    return run


@pytest.fixture(scope="session")
def finetuned(tmp_path_factory, synthetic_store, pretrained):
    """The run folder of a tiny stage 2 from it."""
    run = tmp_path_factory.mktemp("runs") / "finetune"
    encoder = f"--model.init_args.encoder={pretrained / 'encoder'}"
    assert fit("experiments/smoke/finetune.yaml", run, synthetic_store, encoder) == 0
    return run
