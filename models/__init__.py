"""The model and its inference: encoders, memory, optical flow, the propagator."""

from models.mamp import MAMP
from models.memory_bank import DavisMemory, YouTubeVOSMemory
from models.propagator import PRESETS, MaskPropagator, propagate_video

__all__ = ["MAMP", "PRESETS", "DavisMemory", "MaskPropagator", "YouTubeVOSMemory", "propagate_video"]
