"""Warping by flow, and label maps between resolutions."""

import torch
import torch.nn.functional as F

from functional import upsample_argmax, warp, warp_rounded


def test_warp_takes_what_the_flow_points_to():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    flow = torch.zeros(1, 2, 3, 4)
    flow[:, 0] = 1
    torch.testing.assert_close(warp(x, flow)[0, 0, :, :3], x[0, 0, :, 1:])
    assert (warp(x, flow)[0, 0, :, 3] == 0).all(), "outside is 0"
    flow[:, 0] = 0.5
    torch.testing.assert_close(warp(x, flow)[0, 0, 0, :3], torch.tensor([0.5, 1.5, 2.5]))


def test_warp_by_whole_positions_is_exact_and_rounds():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 9)
    flow = torch.randint(-4, 5, (2, 2, 6, 9)).float()
    torch.testing.assert_close(warp_rounded(x, flow), warp(x, flow), atol=1e-5, rtol=0)
    torch.testing.assert_close(warp_rounded(x, flow + 0.3), warp_rounded(x, flow))
    labels = torch.ones(2, 1, 6, 9, dtype=torch.int16)
    far = torch.full((2, 2, 6, 9), 1e6)
    assert (warp_rounded(labels, far, fill=-1) == -1).all()


def test_upsampling_equals_interpolation_for_any_number_of_labels():
    torch.manual_seed(0)
    for count in (1, 3, 20, 256):
        scores = torch.rand(count, 5, 7)
        expected = F.interpolate(scores[None], scale_factor=4, mode="bilinear", align_corners=False)[0].argmax(0)
        assert (upsample_argmax(scores, (20, 28)) == expected).all()
    assert (upsample_argmax(torch.zeros(3, 2, 2), (8, 8)) == 0).all(), "no score at all is background"
