"""``fit``, ``validate``, ``test`` and ``predict``: one YAML and flags to one run folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import jsonargparse
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.trainer.states import TrainerStatus
from typing_extensions import override

from data_modules.streaming import datamodules, mixture  # noqa: F401  # so that their classes have short names
from data_modules.streaming.base import StoresDataModule
from ecgfair.callbacks import BEST, LAST, EpochLine, FiniteLoss, Preemption
from ecgfair.callbacks.run_folder import leaves_files
from ecgfair.cli.differences import differences, read_config
from ecgfair.cli.environment import environment, versions_changed
from ecgfair.cli.fail_safe import FailSafeWandbLogger, build_logger
from ecgfair.cli.faults import told_faults
from ecgfair.cli.metrics_file import MetricsFile
from ecgfair.cli.parse_errors import arguments_of, in_one_line
from ecgfair.cli.run_config import RunConfig, as_settings
from ecgfair.cli.run_folder import CONFIG, Occupied, Start, clear, is_other_process, plan_start
from ecgfair.cli.run_path import run_path
from ecgfair.cli.run_state import RUN, State, command_line, write_end, write_start
from ecgfair.cli.whole_numbers import whole_numbers_first
from ecgfair.ecg import AttributeStatistics, Preprocessing
from ecgfair.errors import ConfigurationError, DivergedError, EcgFairError, PreemptedError
from ecgfair.training import EcgModule
from ecgfair.training.checkpoint_io import AtomicCheckpointIO, read_checkpoint


def _below(base: type) -> list[type]:
    """Return the subclasses of a class that were imported."""
    below: list[type] = base.__subclasses__()
    return [found for sub in below for found in (sub, *_below(sub))]


def _known(base: type) -> Callable[[], list[str]]:
    return lambda: [found.__name__ for found in _below(base) if not found.__name__.startswith("_")]


CLASSES: Final = {
    "model": _known(EcgModule),
    "data": _known(StoresDataModule),
    "trainer.callbacks": _known(Callback),
    "trainer.logger": _known(Logger),
}
"""What a class can be named for, and its short names."""


EPILOG: Final = (
    "Several --config are merged, later ones and flags hold. A configuration may name classes of ecgfair and of "
    "Lightning's trainer; `--trust PACKAGE` adds those of a package, `--trust` those of all that are installed. `fit` "
    "into the folder of a run that was not finished goes on with it."
)


class ExperimentCLI(LightningCLI):
    """``fit``, ``validate``, ``test`` and ``predict``: one YAML and flags to one run folder.

    The configuration and the flags alone decide what is built: nothing in a checkpoint overrides them.

    Args:
        args: The verb and what follows it.
        trusting: Words of the command line that said whose code a configuration may name, see ``cli.trust``.
    """

    def __init__(self, args: list[str], trusting: Sequence[str] = ()) -> None:
        self._words = [args[0], *trusting, *args[1:]]
        self._trusting = trusting
        self._start = Start()
        self._step = 0
        self._occupied = Occupied()
        try:
            self._run(args)
        finally:
            self._occupied.leave()

    def _run(self, args: list[str]) -> None:
        whole_numbers_first(Trainer.__init__)
        super().__init__(
            EcgModule,
            StoresDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            # The stages build their own, see `training.base.Optimisation`.
            auto_configure_optimizers=False,
            save_config_callback=RunConfig,
            seed_everything_default=0,
            trainer_defaults={
                # The data module's samplers share the records among processes: none is evaluated twice.
                "use_distributed_sampler": False,
                # The sanity check would run callbacks on a fraction of the data; the first epoch shows faults as well.
                "num_sanity_val_steps": 0,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "log_every_n_steps": 10,
                "callbacks": [EpochLine(), FiniteLoss(), Preemption()],
            },
            args=args,
            # What is wrong is raised and told in a few lines; jsonargparse alone would print pages of usage before it.
            parser_kwargs={"prog": "python -m ecgfair", "exit_on_error": False, "allow_abbrev": False}
            | {verb: {"exit_on_error": False, "allow_abbrev": False, "epilog": EPILOG} for verb in self.subcommands()},
        )

    @override
    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # static there, and of all verbs
        """Return the verb that was asked for alone: a parser of each takes as long as all the rest of a start."""
        verb = self._words[0]
        return {verb: LightningCLI.subcommands()[verb]}

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        try:
            super().parse_arguments(parser, args)
        # The last two are what jsonargparse raises of lists, and of values that it can't print.
        except (jsonargparse.ArgumentError, UnicodeDecodeError, TypeError, ValueError) as error:
            raise ConfigurationError(in_one_line(str(error), self._flags, CLASSES)) from error

    def _flags(self) -> list[str]:
        """Return the flags of all verbs, and the arguments of the classes that can be named for model and data."""
        parsers = self._subcommand_parsers.values()
        flags = [flag for parser in parsers for action in parser._actions for flag in action.option_strings]  # noqa: SLF001  # argparse has no other list
        classes = [*_below(EcgModule), *_below(StoresDataModule)]
        return [*flags, *(f"--{name}" for found in classes for name in arguments_of(found))]

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
            self._start = plan_start(folder, overwrite=config["overwrite"], checkpoint=config["ckpt_path"])
            if folder.exists():
                self._occupied.enter(folder)
            config["ckpt_path"] = self._start.checkpoint
        elif config["ckpt_path"] is None:
            # Without it Lightning would measure random weights without a word.
            config["ckpt_path"] = str(folder / BEST)
        self._step = _check_checkpoint(config["ckpt_path"])

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
        if is_other_process() or not leaves_files(self.trainer):
            return
        now = environment()
        self._tell_what_it_goes_on_with(folder, now)
        self._occupied.enter(folder)
        if config["overwrite"] and self._start == Start():
            clear(folder)
        begin = {"command": command_line(self._words), "step": self._step, "checkpoint": self._start.checkpoint}
        again = ["fit", *self._trusting, "--config", str(folder / CONFIG), "--run", f"{folder}-again"]
        write_start(folder, self._start.earlier, begin | {"environment": now}, command_line(again))

    def _tell_what_it_goes_on_with(self, folder: Path, now: dict[str, Any]) -> None:
        start = self._start
        if start.chosen:
            was = "was killed" if start.earlier and start.earlier["state"] == "running" else "was not finished"
            if start.checkpoint is None:
                _tell(f"the run in {folder} {was} and has no checkpoint yet: it starts anew.")
                return
            _tell(f"the run in {folder} {was}: it goes on from {start.checkpoint}, step {self._step}.")
        if start.checkpoint is None:
            return
        if start.earlier and start.earlier.get("starts"):
            for line in versions_changed(start.earlier["starts"][-1]["environment"], now):
                _tell(f"goes on with another version of {line}")
        checkpoint = Path(start.checkpoint)
        beside = [path for parent in list(checkpoint.parents)[:2] if (path := parent / CONFIG).is_file()]
        if beside:
            current = as_settings(self._parser("fit"), self.config["fit"])
            for line in differences(read_config(beside[0]), current):
                _tell(f"goes on with another setting of {line}")

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        if subcommand != "fit":
            super()._run_subcommand(subcommand)
            return
        try:
            with told_faults(Path(self.config["fit"]["run"])):
                super()._run_subcommand(subcommand)
        except SystemExit:
            # How Lightning ends on Ctrl-C, without a word.
            if self.trainer.state.status != TrainerStatus.INTERRUPTED:
                self._note_end("failed", "the process was asked to exit")
                raise
            self._note_end("interrupted")
            raise KeyboardInterrupt(self._how_to_go_on()) from None
        except KeyboardInterrupt:
            self._note_end("interrupted")
            raise
        except BaseException as error:
            said = str(error).strip().splitlines()
            self._note_end(_state(error), f"{type(error).__name__}: {said[0]}" if said else type(error).__name__)
            raise
        self._note_end("finished")

    def _how_to_go_on(self) -> str:
        if (Path(self.trainer.default_root_dir) / LAST).exists():
            return "the same command goes on from the last checkpoint"
        return "no epoch was finished; the same command starts anew"

    def _note_end(self, state: State, error: str | None = None) -> None:
        folder = Path(self.config["fit"]["run"])
        # Where the start could not be noted, the end is of no run.
        if not is_other_process() and leaves_files(self.trainer) and (folder / RUN).exists():
            write_end(folder, state, error)

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
        # The table comes first, and is there with and without others: the run folder is complete by itself.
        kwargs["logger"] = [MetricsFile(log_folder), *others]
        plugins = self._get(self.config_init, "trainer")["plugins"] or []
        plugins = list(plugins) if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, AtomicCheckpointIO()]
        return super().instantiate_trainer(**kwargs)


def _statistics_to_dict(statistics: AttributeStatistics) -> dict[str, list[float]]:
    return {"mean": list(statistics.mean), "std": list(statistics.std)}


def _state(error: BaseException) -> State:
    if isinstance(error, PreemptedError):
        return "preempted"
    return "diverged" if isinstance(error, DivergedError) else "failed"


def _tell(line: str) -> None:
    print(f"ecgfair: {line}", file=sys.stderr)  # noqa: T201  # what a user has to know of a run that goes on


def _check_checkpoint(path: str | None) -> int:
    """Refuse what is no checkpoint, before anything is built, and return the steps that were made before it."""
    if path is None or path in {"last", "best", "hpc", "registry"}:
        return 0
    return int(read_checkpoint(path, map_location="meta")["global_step"])
