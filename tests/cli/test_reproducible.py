"""The same configuration, run twice, gives the same run to the last byte."""

import pytest
import torch

from tests.cli.driving import fit

STAGES = ["pretrain", "finetune"]


@pytest.mark.parametrize("stage", STAGES)
def test_two_runs_of_the_smoke_configuration_log_the_same_bytes_and_end_at_the_same_weights(
    stage, tmp_path, synthetic_store, pretrained
):
    encoder = [f"--model.init_args.encoder={pretrained / 'encoder'}"] if stage == "finetune" else []
    runs = [tmp_path / name for name in ("one", "other", "deterministic")]
    for run in runs:
        flags = ["--trainer.deterministic=true"] if run.name == "deterministic" else []
        # The state that a process begins in has no say.
        torch.manual_seed(hash(run.name) % 1000)
        assert fit(f"experiments/smoke/{stage}.yaml", run, synthetic_store, *encoder, *flags) == 0
    tables = [(run / "metrics.csv").read_bytes() for run in runs]
    assert tables[0] == tables[1]
    assert tables[0] == tables[2], "on a CPU every algorithm is deterministic already"
    first, *others = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in runs)
    for other in others:
        assert all(torch.equal(value, other[name]) for name, value in first.items())


def test_another_seed_is_another_run(tmp_path, synthetic_store, pretrained):
    """Else the test above would show nothing."""
    assert fit("experiments/smoke/pretrain.yaml", tmp_path / "run", synthetic_store, "--seed_everything=1") == 0
    assert (tmp_path / "run" / "metrics.csv").read_bytes() != (pretrained / "metrics.csv").read_bytes()
