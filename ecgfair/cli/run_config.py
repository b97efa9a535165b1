"""``config.yaml``: the configuration as it was run, complete, ready to be run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from typing_extensions import override

from ecgfair.cli.differences import differences, read_config
from ecgfair.cli.metrics_file import MetricsFile
from ecgfair.cli.parse_errors import in_one_line
from ecgfair.cli.run_folder import set_aside
from ecgfair.errors import ConfigurationError, RunFolderError
from ecgfair.training.checkpoint_io import write_whole


def as_yaml(parser: LightningArgumentParser, config: Namespace, *, training: bool) -> str:
    """Return what makes the same run again.

    Args:
        parser: Of the verb.
        config: As it was parsed.
        training: Whether the verb is ``fit``. The checkpoint that a training goes on from and the order to replace
            another run are no part of how it is made; what is measured of a checkpoint is.
    """
    again = config.clone()
    if training:
        again["ckpt_path"], again["overwrite"] = None, False
    try:
        return str(parser.dump(again, skip_none=False))
    except ValueError as error:
        raise ConfigurationError(f"The configuration can't be written as YAML: {in_one_line(str(error))}") from error


def as_settings(parser: LightningArgumentParser, config: Namespace) -> dict[str, Any]:
    """Return a parsed configuration as plain values."""
    plain: dict[str, Any] = yaml.safe_load(as_yaml(parser, config, training=False))
    return plain


class RunConfig(SaveConfigCallback):
    """Writes the configuration as it was run into the run folder, and hands it to the other loggers as well.

    A configuration that it would replace and that differs is set aside: a run that went on with other settings has all
    that it was made with.
    """

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        checkpoint, folder = str(trainer.ckpt_path), trainer.log_dir
        first = trainer.strategy.broadcast(checkpoint)
        if first != checkpoint:
            raise RunFolderError(
                f"Process {trainer.global_rank} would go on from {checkpoint}, the first one from {first}: expected "
                "that all see the same run folder. Put it on a file system that all machines share."
            )
        if self.already_saved or not trainer.is_global_zero:
            return
        path = Path(folder or trainer.default_root_dir) / self.config_filename
        text = as_yaml(self.parser, self.config, training=stage == "fit")
        if stage == "fit" and path.exists() and differences(read_config(path), yaml.safe_load(text)):
            set_aside(path)
        write_whole(path, text.encode())
        self.save_config(trainer, pl_module, stage)
        self.already_saved = True

    @override
    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        plain = as_settings(self.parser, self.config)
        for logger in trainer.loggers:
            # The table of metrics lies beside the file.
            if not isinstance(logger, MetricsFile):
                logger.log_hyperparams(plain)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Cut the table of metrics where the run goes on; only now is it sure that it can."""
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.keep_before(trainer.global_step)
