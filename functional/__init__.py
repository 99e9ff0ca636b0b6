"""Tensor operations of mask propagation: local matching, warping and label maps. No files, no models."""

from functional.labels import paint, subsample, upsample_argmax
from functional.propagation import available_backends, local_correlation, propagate, propagate_labels
from functional.specks import scattered_labels, without_specks
from functional.warp import warp, warp_rounded

__all__ = [
    "available_backends",
    "local_correlation",
    "paint",
    "propagate",
    "propagate_labels",
    "scattered_labels",
    "subsample",
    "upsample_argmax",
    "warp",
    "warp_rounded",
    "without_specks",
]
