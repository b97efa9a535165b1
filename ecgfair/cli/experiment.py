"""``fit``, ``validate``, ``test`` and ``predict``: one YAML and flags to one run folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jsonargparse
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.trainer.states import TrainerStatus
from typing_extensions import override

from data_modules.streaming import datamodules, mixture  # noqa: F401  # so that their classes have short names
from data_modules.streaming.base import StoresDataModule
from ecgfair.callbacks import BEST, EpochLine
from ecgfair.cli.fail_safe import FailSafeWandbLogger, build_logger
from ecgfair.cli.parse_errors import in_one_line
from ecgfair.cli.run_folder import check_run_folder, is_other_process, set_aside
from ecgfair.cli.run_path import run_path
from ecgfair.ecg import AttributeStatistics, Preprocessing
from ecgfair.errors import CheckpointError, ConfigurationError, EcgFairError
from ecgfair.training import EcgModule


class RunConfig(SaveConfigCallback):
    """Writes the configuration as it was run into the run folder, and hands it to the other loggers as well."""

    @override
    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        settings = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        for logger in trainer.loggers:
            # The CSV log lies beside the file.
            if not isinstance(logger, CSVLogger):
                logger.log_hyperparams(settings)


class ExperimentCLI(LightningCLI):
    """``fit``, ``validate``, ``test`` and ``predict``: one YAML and flags to one run folder.

    The configuration and the flags alone decide what is built: nothing in a checkpoint overrides them.
    """

    def __init__(self, args: list[str]) -> None:
        super().__init__(
            EcgModule,
            StoresDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            # The stages build their own, see `training.base.Optimisation`.
            auto_configure_optimizers=False,
            save_config_callback=RunConfig,
            # Its own folder rules are in `check_run_folder`.
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            trainer_defaults={
                # The data module's samplers share the records among processes: none is evaluated twice.
                "use_distributed_sampler": False,
                # The sanity check would run callbacks on a fraction of the data; the first epoch shows faults as well.
                "num_sanity_val_steps": 0,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "log_every_n_steps": 10,
                "callbacks": [EpochLine()],
            },
            args=args,
            # What is wrong is raised and told in a few lines; jsonargparse alone would print pages of usage before it.
            parser_kwargs={"prog": "python -m ecgfair", "exit_on_error": False}
            | {verb: {"exit_on_error": False} for verb in self.subcommands()},
        )

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        try:
            super().parse_arguments(parser, args)
        except (jsonargparse.ArgumentError, UnicodeDecodeError) as error:
            raise ConfigurationError(in_one_line(str(error))) from error

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run",
            type=run_path,
            required=True,
            help="Folder that the run writes all it makes into, for example runs/mine or runs/$SLURM_JOB_ID.",
        )
        parser.add_argument("--overwrite", type=bool, default=False, help="Replace the run that is in that folder.")
        parser.link_arguments("run", "trainer.default_root_dir")
        parser.add_instantiator(build_logger, Logger, subclasses=True)
        # What a model has to know of the data is never typed twice. A link to what a model lacks is skipped.
        for name in ("label_names", "label_prevalence", "training_records", "training_data"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        parser.link_arguments(
            "data.preprocessing",
            "model.init_args.preprocessing",
            compute_fn=Preprocessing.to_dict,
            apply_on="instantiate",
        )
        parser.link_arguments(
            "data.attribute_statistics",
            "model.init_args.attribute_statistics",
            compute_fn=_statistics_to_dict,
            apply_on="instantiate",
        )

    @override
    def _parse_ckpt_path(self) -> None:
        """Leave out what Lightning does here: it lets the hyper-parameters of a checkpoint override the flags."""

    @override
    def before_instantiate_classes(self) -> None:
        verb = self.config["subcommand"]
        config = self.config[verb]
        folder = Path(config["run"])
        if verb == "fit":
            check_run_folder(folder, overwrite=config["overwrite"], resumes=config["ckpt_path"] is not None)
        elif config["ckpt_path"] is None:
            # Without it Lightning would measure random weights without a word.
            config["ckpt_path"] = str(folder / BEST)
        _check_checkpoint(config["ckpt_path"])

    @override
    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as error:
            # jsonargparse wraps what a constructor raises into a page on types; the cause is what the user can mend.
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, EcgFairError):
                cause = cause.__cause__
            raise cause or error from None

    def before_fit(self) -> None:
        """Make room in the run folder; only now, when nothing in the configuration can fail any more."""
        config = self.config["fit"]
        folder = Path(config["run"])
        if is_other_process():
            return
        metrics = folder / "metrics.csv"
        if config["ckpt_path"] is None and config["overwrite"] and folder.exists():
            shutil.rmtree(folder)
        elif metrics.exists():
            # Lightning's CSV log deletes the one that is there, of a run that goes on too.
            set_aside(metrics)

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except SystemExit:
            # How Lightning ends on Ctrl-C, without a word.
            if self.trainer.state.status != TrainerStatus.INTERRUPTED:
                raise
            last = Path(self.trainer.default_root_dir) / "checkpoints" / "last.ckpt"
            told = f"`--ckpt_path {last}` goes on from the last epoch" if last.exists() else "no epoch was finished"
            raise KeyboardInterrupt(told) from None

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        verb = self.config["subcommand"]
        folder = Path(self.config[verb]["run"])
        log_folder = folder if verb == "fit" else folder / verb
        asked = self._get(self.config_init, "trainer")["logger"]
        others: list[Logger] = [asked] if isinstance(asked, Logger) else asked if isinstance(asked, list) else []
        for logger in others:
            if isinstance(logger, FailSafeWandbLogger):
                logger.keep_in(log_folder)
        # The CSV log comes first, and is there with and without others: the run folder is complete by itself.
        kwargs["logger"] = [CSVLogger(log_folder, name="", version=""), *others]
        return super().instantiate_trainer(**kwargs)


def _statistics_to_dict(statistics: AttributeStatistics) -> dict[str, list[float]]:
    return {"mean": list(statistics.mean), "std": list(statistics.std)}


def _check_checkpoint(path: str | None) -> None:
    if path is None or path in {"last", "best", "hpc", "registry"}:
        return
    if not Path(path).is_file():
        raise CheckpointError(
            f"There is no checkpoint at {path}: expected one that `fit` wrote, such as RUN/{BEST}. Train first, or "
            "name it with --ckpt_path."
        )
    try:
        torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:  # what a damaged or foreign file raises has no common class
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path} can't be read as a checkpoint: {reason}") from error
