"""The encoder checkpoint: a folder of ``encoder.safetensors`` and ``encoder.json``. No pickle, no code.

Stage 1 writes it and stage 2 reads it. It says what built the encoder, how its signals were prepared, the statistics of
the attributes it was trained on and which data that was.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import lightning
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as dump_safetensors

import ecgfair
from ecgfair.ecg import AttributeStatistics, Preprocessing
from ecgfair.errors import CheckpointError, ConfigurationError, EcgFairError, WriteError
from ecgfair.models.encoder import Encoder, EncoderSpec
from ecgfair.training.checkpoint_io import write_whole

WEIGHTS: Final = "encoder.safetensors"
CARD: Final = "encoder.json"
FORMAT: Final = 1


@dataclass(frozen=True)
class EncoderCheckpoint:
    """What ``encoder.json`` says of the weights beside it.

    Args:
        spec: Name and arguments of the encoder.
        preprocessing: How the signals were prepared that it was trained on.
        attribute_statistics: What standardised the attributes in its training.
        training_data: Fingerprint of the training data.
    """

    spec: EncoderSpec
    preprocessing: Preprocessing
    attribute_statistics: AttributeStatistics
    training_data: str


def save_encoder(folder: Path | str, encoder: Encoder, checkpoint: EncoderCheckpoint) -> None:
    """Write an encoder checkpoint; one that is already there is replaced only once the new one is complete.

    At any moment ``load_encoder`` finds the old one or the new one, never parts of both.

    Args:
        folder: Where to.
        encoder: The encoder.
        checkpoint: What to say of it.

    Raises:
        WriteError: The disk is full or can't be written; the checkpoint that was there is kept.
    """
    folder = Path(folder)
    weights = dump_safetensors({name: value.contiguous().cpu() for name, value in encoder.state_dict().items()})
    card = {
        "format": FORMAT,
        "class": checkpoint.spec.name,
        "arguments": checkpoint.spec.arguments,
        "preprocessing": checkpoint.preprocessing.to_dict(),
        "attribute_statistics": asdict(checkpoint.attribute_statistics),
        "training_data": checkpoint.training_data,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "versions": {
            "ecgfair": ecgfair.__version__,
            "torch": str(torch.__version__),
            "lightning": lightning.__version__,
        },
    }
    partial, previous = folder.with_name(f"{folder.name}.partial"), _previous(folder)
    if not folder.exists() and previous.exists():
        previous.rename(folder)  # a process died between the two renamings below
    try:
        for leftover in (partial, previous):
            shutil.rmtree(leftover, ignore_errors=True)
        write_whole(partial / WEIGHTS, weights)
        write_whole(partial / CARD, (json.dumps(card, indent=2) + "\n").encode())
        _swap(partial, folder, previous)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _swap(partial: Path, folder: Path, previous: Path) -> None:
    """Put a complete folder in the place of another, which is there until then, or is put back."""
    if not folder.exists():
        partial.rename(folder)
        return
    folder.rename(previous)
    try:
        partial.rename(folder)
    except OSError as error:
        previous.rename(folder)
        raise WriteError(
            f"{folder} can't be replaced ({error.strerror or error}): the one that was there is kept."
        ) from error
    shutil.rmtree(previous, ignore_errors=True)


def _previous(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.previous")


def load_encoder(folder: Path | str, preprocessing: Preprocessing | None = None) -> tuple[Encoder, EncoderCheckpoint]:
    """Build the encoder of a checkpoint and load its weights strictly.

    Args:
        folder: The checkpoint.
        preprocessing: How the signals at hand were prepared; checked against the checkpoint's unless None.

    Returns:
        The encoder in training mode, and what the checkpoint says of it.

    Raises:
        CheckpointError: It is missing, damaged, of a class that is not an ecgfair encoder, or its weights do not fit.
        PreprocessingMismatchError: It was trained on signals prepared in another way.
    """
    folder = Path(folder)
    if not folder.exists() and _previous(folder).exists():
        folder = _previous(folder)  # another process is replacing it, or died over that
    card = _read_card(folder)
    checkpoint = _parse(card, folder)
    if preprocessing is not None:
        checkpoint.preprocessing.require_same(preprocessing, f"the checkpoint {folder}", "the data")
    weights = (folder / WEIGHTS).read_bytes()
    found = hashlib.sha256(weights).hexdigest()
    if found != card.get("weights_sha256"):
        raise CheckpointError(
            f"{folder / WEIGHTS} has the SHA-256 {found[:12]}…, {CARD} says {str(card.get('weights_sha256'))[:12]}…: "
            "it was truncated or changed since it was written. Copy it again, or train it again."
        )
    try:
        encoder = checkpoint.spec.build(len(checkpoint.preprocessing.leads))
        encoder.load_state_dict(load_safetensors(weights), strict=True)
    except (ConfigurationError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"The weights in {folder} are not those of the encoder in its {CARD}: {error}") from error
    return encoder, checkpoint


def _read_card(folder: Path) -> dict[str, Any]:
    missing = [name for name in (CARD, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"There is no encoder checkpoint at {folder}: {' and '.join(missing)} missing. Expected the `encoder` "
            "folder in the run folder of a finished pretraining (`python -m ecgfair fit --config …/pretrain.yaml`)."
        )
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{folder / CARD} is not valid JSON: {error}. Copy it again, or train it again."
        ) from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        found = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise CheckpointError(f"{folder / CARD} has the format {found!r}: this version of ecgfair reads {FORMAT}.")
    return card


def _parse(card: dict[str, Any], folder: Path) -> EncoderCheckpoint:
    try:
        statistics = card["attribute_statistics"]
        spec = EncoderSpec(card["class"], dict(card["arguments"]))
        checkpoint = EncoderCheckpoint(
            spec=spec,
            preprocessing=Preprocessing.from_dict(card["preprocessing"]),
            attribute_statistics=AttributeStatistics(statistics["mean"], statistics["std"]),
            training_data=card["training_data"],
        )
        spec.check_name()
    except KeyError as error:
        raise CheckpointError(f"{folder / CARD} lacks the field {error}. Copy it again, or train it again.") from error
    except (EcgFairError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / CARD} can't be used: {error}") from error
    return checkpoint
