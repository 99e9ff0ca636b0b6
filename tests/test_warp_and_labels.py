"""Warping by flow, and label maps between resolutions."""

import torch
import torch.nn.functional as F

from functional import scattered_labels, upsample_argmax, warp, warp_rounded, without_specks


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


def _shares_of(winner):
    """Votes [3, h, w] that a label map [h, w] wins with 0.7 against 0.2 and 0.1."""
    shares = torch.full((3, *winner.shape), 0.1)
    shares[0] = 0.2
    return shares.scatter(0, winner[None], 0.7) / shares.scatter(0, winner[None], 0.7).sum(0)


def test_small_far_pieces_are_dropped_and_near_or_large_ones_stay():
    winner = torch.zeros(60, 80, dtype=torch.long)
    winner[10:30, 10:30] = 1  # the object
    winner[10:30, 33:35] = 1  # thin and near: 3 positions away, less than twice the reach of 2
    winner[50:52, 60:62] = 1  # far and small
    winner[40:50, 5:25] = 2  # another object
    winner[45, 15] = 1  # a speck of the first one on it
    shares = _shares_of(winner)
    kept = without_specks(shares, 0.01)
    expected = winner.clone()
    expected[50:52, 60:62], expected[45, 15] = 0, 0
    assert (kept.argmax(0) == expected).all()
    torch.testing.assert_close(kept.sum(0), torch.ones(60, 80))
    unchanged = expected == winner
    torch.testing.assert_close(kept[:, unchanged], shares[:, unchanged])
    assert (without_specks(shares, 0.005).argmax(0)[50:52, 60:62] == 1).all(), "four of 400 are not too small"


def test_specks_of_what_is_scattered_by_nature_stay():
    cells = torch.zeros(60, 80, dtype=torch.long)
    cells[10:20, 10:20] = cells[10:12, 60:62] = cells[40:43, 20:23] = cells[50:52, 50:52] = 1
    cells[25:35, 40:60] = cells[3, 3] = 2  # one object, and a slip of the pen
    assert scattered_labels(cells, 0.1) == {1}
    shares = _shares_of(cells)
    expected = cells.clone()
    expected[3, 3] = 0
    assert (without_specks(shares, 0.1, {1}).argmax(0) == expected).all()
    assert (without_specks(shares, 0.1).argmax(0)[cells == 1] == 1).sum() == 100, "without it they are dropped"


def test_without_another_vote_a_speck_is_background():
    shares = torch.zeros(2, 40, 90)
    shares[1, 4:10, 4:10] = shares[1, 30, 80] = 1
    shares[0] = 1 - shares[1]
    assert without_specks(shares, 0.1)[0, 30, 80] == 1
    nothing = torch.tensor([1.0, 0.0])[:, None, None].expand(2, 6, 6)
    assert without_specks(nothing, 0.1) is nothing
