"""How these tests drive the command line: in-process, as a user does from a shell."""

from ecgfair.__main__ import main

TINY = [
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.accelerator=cpu",
    "--data.init_args.batch_size=16",
]


def fit(config, run, store, *more: str) -> int:
    return main(["fit", "--config", str(config), "--run", str(run), "--data.init_args.store", str(store), *TINY, *more])


def again(verb: str, run, *more: str) -> int:
    return main([verb, "--config", str(run / "config.yaml"), *more])


def error_line(capsys) -> str:
    """What was printed on standard error: it has to be one line, without a traceback."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]
