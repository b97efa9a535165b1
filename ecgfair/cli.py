"""The top floor: composes readers, data modules, both stages and the callbacks into verbs of the command line."""

from __future__ import annotations

import logging
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import jsonargparse
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from data_modules.benchmark import benchmark_data
from data_modules.inspection import print_description
from data_modules.large_store import benchmark_store
from data_modules.preparing.sources import SOURCES
from data_modules.record_page import record_page
from data_modules.stores.publish import publish
from data_modules.stores.store import RecordStore
from data_modules.streaming import datamodules, mixture  # noqa: F401  # so that their classes have short names
from data_modules.streaming.base import StoresDataModule
from data_modules.synthetic.writing.synthesize import synthesize
from ecgfair.callbacks import BEST, EpochLine
from ecgfair.ecg import AttributeStatistics, Preprocessing
from ecgfair.errors import CheckpointError, ConfigurationError, EcgFairError, RunFolderError
from ecgfair.report.audit import audit
from ecgfair.report.ecg_page import draw_page, save_page
from ecgfair.training import EcgModule

CONFIG = "config.yaml"


def run(verb: str, arguments: Sequence[str]) -> None:
    """Run one verb.

    Args:
        verb: One of ``ecgfair.__main__.VERBS``.
        arguments: The rest of the command line.

    Raises:
        EcgFairError: What the user can mend.
    """
    if verb == "inspect":
        inspect(**_inspect_arguments(arguments))
    elif verb in PLAIN_VERBS:
        _call(PLAIN_VERBS[verb], verb, arguments)
    else:
        _quiet()
        ExperimentCLI(args=[verb, *arguments])


def inspect(
    store: str, record: str | None = None, output: str | None = None, verify: bool = False, labels: str | None = None
) -> None:
    """Print what a RecordStore holds, or draw the 12-lead page of one of its records.

    Args:
        store: Folder or URI (s3://…, gs://…, https://…) of the store.
        record: Id of a record, as in records.parquet: draws its page, true to scale at 25 mm/s and 10 mm/mV.
        output: File of the page, .png or .svg; ecg-RECORD.png if left out.
        verify: Read every file first and compare its checksum with the manifest's.
        labels: Label set to count; the store's usual one if left out.
    """
    opened = RecordStore(store)
    if verify:
        opened.verify()
        print(f"Every file of {opened.location} is as its manifest says.")  # noqa: T201  # what was asked for
    if record is None:
        if output is not None:
            raise ConfigurationError(f"output is {output}: name a record too, whose page is to be drawn.")
        print_description(opened, label_set=labels)
        return
    path = output or f"ecg-{re.sub(r'[^A-Za-z0-9._-]+', '_', record)}.png"
    save_page(draw_page(**vars(record_page(opened, record))), path)
    print(path)  # noqa: T201  # where the page is


def _inspect_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """Read the command line of ``inspect``: auto_cli has no optional positional and no flag without a value."""
    parser = jsonargparse.ArgumentParser(
        prog="python -m ecgfair inspect",
        description="Print what a RecordStore holds, or draw the 12-lead page of one of its records.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_function_arguments(inspect, skip={"record", "verify"}, as_positional=True)
    parser.add_argument("record", nargs="?", help="Id of a record, as in records.parquet, whose page is to be drawn.")
    parser.add_argument(
        "--verify", action="store_true", help="Compare every file's checksum with the manifest's first."
    )
    try:
        return vars(parser.parse_args(list(arguments)))
    except (jsonargparse.ArgumentError, UnicodeDecodeError) as error:
        raise ConfigurationError(_in_one_line(str(error))) from error


PLAIN_VERBS: Final[Mapping[str, Any]] = {
    "prepare": dict(SOURCES),
    "publish": publish,
    "benchmark": {"data": benchmark_data, "store": benchmark_store},
    "synthesize": synthesize,
    "audit": audit,
}
"""Verbs that are plain functions, or one a subcommand."""


def _call(components: Any, verb: str, arguments: Sequence[str]) -> None:
    """Call a plain function, or one of several by its name, with what the command line says."""
    try:
        jsonargparse.auto_cli(
            components,
            args=list(arguments),
            prog=f"python -m ecgfair {verb}",
            exit_on_error=False,
            allow_abbrev=False,
            as_positional=True,
        )
    except (jsonargparse.ArgumentError, UnicodeDecodeError) as error:
        raise ConfigurationError(_in_one_line(str(error))) from error


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
            # Its own folder rules are in `_check_run_folder`.
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
            raise ConfigurationError(_in_one_line(str(error))) from error

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run",
            type=str,
            required=True,
            help="Folder that the run writes all it makes into, for example runs/mine.",
        )
        parser.add_argument("--overwrite", type=bool, default=False, help="Replace the run that is in that folder.")
        parser.link_arguments("run", "trainer.default_root_dir")
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
            _check_run_folder(folder, overwrite=config["overwrite"], resumes=config["ckpt_path"] is not None)
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
        if _is_other_process():
            return
        metrics = folder / "metrics.csv"
        if config["ckpt_path"] is None and config["overwrite"] and folder.exists():
            shutil.rmtree(folder)
        elif metrics.exists():
            # Lightning's CSV log deletes the one that is there, of a run that goes on too.
            _set_aside(metrics)

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
        # The CSV log comes first, and is there with and without others: the run folder is complete by itself.
        kwargs["logger"] = [CSVLogger(log_folder, name="", version=""), *others]
        return super().instantiate_trainer(**kwargs)


def _in_one_line(parse_error: str) -> str:
    """Keep of jsonargparse's page on types the lines that say what is wrong."""
    if "codec can't decode" in parse_error:
        return f"The file named by --config is no text ({parse_error}): expected YAML."
    noise = ("Does not validate", "Subtypes:", "Errors:", "- Expected a <class 'NoneType'>", "Given value")
    lines = [line.strip() for line in parse_error.splitlines()]
    said = " ".join(line.removeprefix("- ") for line in lines if line and not line.startswith(noise))
    return f"{said} (`python -m ecgfair VERB --help` and `--print_config` show what can be set.)"


def _statistics_to_dict(statistics: AttributeStatistics) -> dict[str, list[float]]:
    return {"mean": list(statistics.mean), "std": list(statistics.std)}


def _is_other_process() -> bool:
    """Whether this is not the first process of a run: the others start when its folder is there already."""
    return bool(getattr(rank_zero_only, "rank", 0))


def _check_run_folder(folder: Path, *, overwrite: bool, resumes: bool) -> None:
    """Keep two runs out of one folder."""
    if _is_other_process() or not folder.exists() or resumes:
        return
    if not folder.is_dir():
        raise RunFolderError(f"{folder} is a file: expected a folder or nothing there. Choose another --run.")
    if not any(folder.iterdir()):
        return
    if not (folder / CONFIG).is_file():
        raise RunFolderError(f"{folder} is not empty and holds no run of ecgfair: choose another folder with --run.")
    if not overwrite:
        raise RunFolderError(
            f"{folder} holds a run already. Go on with it (--ckpt_path {folder}/checkpoints/last.ckpt), replace it "
            "(--overwrite true) or choose another folder (--run)."
        )


def _set_aside(path: Path) -> None:
    """Rename a file to the first free ``name-1``, ``name-2``, … beside it."""
    number = 1
    while (aside := path.with_stem(f"{path.stem}-{number}")).exists():
        number += 1
    path.rename(aside)


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


def _quiet() -> None:
    """Silence what Lightning says to everybody and what does not apply here, each with its reason."""
    ignored = (
        # `main` takes its arguments as a list, for tests too; they are those of the command line.
        r"LightningCLI's args parameter is intended.*",
        # Of Lightning's own code, nothing a user can change.
        r".*isinstance\(treespec, LeafSpec\).*is deprecated.*",
        # Lightning 2.6 calls jsonargparse by names that go with its version 5; pyproject.toml keeps it below.
        r"(?s).*JsonargparseDeprecationWarning.*",
        r"(?s).*deprecated in\s+v4\..*removed in\s+v5.*",
        # The loader gathers a batch in one memory copy; whether processes help is `--data.init_args.num_workers`.
        r".*does not have many workers.*",
        # CSVLogger says so when a run is resumed, and the folder was looked after.
        r"Experiment logs directory .* exists and is not empty.*",
        r"Checkpoint directory .* exists and is not empty.*",
        # Few batches an epoch are what tiny data sets have.
        r"The number of training batches .* is smaller than the logging interval.*",
        # `test` measures the averaged weights, which is what the checkpoint holds as the model's.
        r"You're using the WeightAveraging callback, but loading a checkpoint outside.*",
        # A frozen encoder stays in evaluation mode on purpose.
        r"Found \d+ module\(s\) in eval mode at the start of training.*",
        # Whether to use a GPU is the user's choice (--trainer.accelerator).
        r"GPU available but not used.*",
    )
    for message in ignored:
        warnings.filterwarnings("ignore", message=message)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
