"""ecgfair: ECG pretraining without diagnoses, fine-tuning on a long tail of them, and how well each group is served."""

__version__ = "0.1.0"
