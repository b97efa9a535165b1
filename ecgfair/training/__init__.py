"""The two stages as LightningModules, and the encoder checkpoint that they share."""

from ecgfair.training.base import EcgModule
from ecgfair.training.encoder_checkpoint import EncoderCheckpoint, load_encoder, save_encoder
from ecgfair.training.finetune import FinetuneModule
from ecgfair.training.pretrain import PretrainModule

__all__ = [
    "EcgModule",
    "EncoderCheckpoint",
    "FinetuneModule",
    "PretrainModule",
    "load_encoder",
    "save_encoder",
]
