"""Encoders: a frame in CIE Lab in, one feature vector every fourth pixel out.

The contract of an encoder class is ``forward(lab [B, 3, H, W]) -> [B, channels, H/4, W/4]`` for H and W that
are multiples of 4, and three class attributes: ``channels``, and ``metric`` and ``temperature``, how its features
are compared (:func:`functional.propagate`). A new encoder is one such class, named in ``ENCODERS``.
"""

import copy

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval


def _conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, the basic block of ResNet-18."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.body = nn.Sequential(
            *_conv_norm(inputs, outputs, 3, stride), nn.ReLU(inplace=True), *_conv_norm(outputs, outputs, 3)
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Sequential() if same else nn.Sequential(*_conv_norm(inputs, outputs, 1, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.body(x) + self.shortcut(x), inplace=True)


def _stage(inputs: int, outputs: int, stride: int, blocks: int = 2) -> nn.Sequential:
    rest = [ResidualBlock(outputs, outputs) for _ in range(blocks - 1)]
    return nn.Sequential(ResidualBlock(inputs, outputs, stride), *rest)


class ResNet18(nn.Module):
    """The paper's encoder (Section 3.1): ResNet-18 held at stride 4, without max-pooling, and a projection.

    5.3 M parameters; 147 GMAC for a 480x856 frame, nearly all of it in the stages at stride 4.
    """

    channels = 64
    metric = "dot"
    temperature = None

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(*_conv_norm(3, 64, 7, 2), nn.ReLU(inplace=True))
        self.layer1 = _stage(64, 64, 1)
        self.layer2 = _stage(64, 128, 2)
        self.layer3 = _stage(128, 256, 1)
        self.layer4 = _stage(256, 256, 1)
        self.projection = nn.Conv2d(256, self.channels, 3, padding=1)

    def forward(self, lab: torch.Tensor) -> torch.Tensor:
        x = self.layer2(self.layer1(self.stem(lab)))
        return self.projection(self.layer4(self.layer3(x)))


class Light(nn.Module):
    """For machines without a GPU: a slim residual network down to stride 16, a feature pyramid back to 4.

    2.9 M parameters; 14 GMAC for a 480x856 frame. The wide stages run where positions are few; the pyramid
    brings what they saw back to stride 4, where one residual block joins it with the fine detail.
    """

    channels = 64
    metric = "dot"
    temperature = None
    width = 64

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(*_conv_norm(3, 32, 7, 2), nn.ReLU(inplace=True))
        self.layer1 = _stage(32, 64, 2)
        self.layer2 = _stage(64, 128, 2)
        self.layer3 = _stage(128, 256, 2)
        self.lateral1 = nn.Conv2d(64, self.width, 1)
        self.lateral2 = nn.Conv2d(128, self.width, 1)
        self.lateral3 = nn.Conv2d(256, self.width, 1)
        self.smooth2 = nn.Sequential(*_conv_norm(self.width, self.width, 3), nn.ReLU(inplace=True))
        self.join = ResidualBlock(self.width, self.width)
        self.projection = nn.Conv2d(self.width, self.channels, 3, padding=1)

    def forward(self, lab: torch.Tensor) -> torch.Tensor:
        fine = self.layer1(self.stem(lab))
        middle = self.layer2(fine)
        coarse = self.layer3(middle)
        middle = self.smooth2(self.lateral2(middle) + _resize_to(self.lateral3(coarse), middle))
        fine = self.join(self.lateral1(fine) + _resize_to(middle, fine))
        return self.projection(fine)


def _resize_to(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class LabPatches(nn.Module):
    """No parameters: the Lab colours of the 3x3 neighbourhood, averaged over 4x4 pixels, times 6.

    The floor that every trained encoder must beat, and what tests use where weights would not matter.
    """

    channels = 27
    metric = "l2"
    temperature = 1.0
    gain = 6.0

    def forward(self, lab: torch.Tensor) -> torch.Tensor:
        pooled = F.avg_pool2d(lab, 4)
        patches = F.unfold(pooled, 3, padding=1)
        return self.gain * patches.view(len(lab), self.channels, *pooled.shape[-2:])


def for_inference(encoder: nn.Module) -> nn.Module:
    """A copy that computes the same faster: normalisation folded into the convolutions, channels last."""
    encoder = copy.deepcopy(encoder).eval()
    for sequence in [module for module in encoder.modules() if isinstance(module, nn.Sequential)]:
        for i in range(len(sequence) - 1):
            if isinstance(sequence[i], nn.Conv2d) and isinstance(sequence[i + 1], nn.BatchNorm2d):
                sequence[i] = fuse_conv_bn_eval(sequence[i], sequence[i + 1])
                sequence[i + 1] = nn.Identity()
    return encoder.to(memory_format=torch.channels_last)


ENCODERS: dict[str, type[nn.Module]] = {
    "resnet18": ResNet18,
    "MAMP": ResNet18,
    "light": Light,
    "lab": LabPatches,
}
