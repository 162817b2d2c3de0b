import numpy as np
import pytest
import torch

from instantvir_models.media import Frame, blocks, to_uint8, to_uint16, to_unit


def test_every_8_bit_level_survives_the_trip_to_floats():
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    x = to_unit(levels)
    assert x.dtype == torch.float32
    assert x.shape == (1, 1, 3, 16, 16)
    assert (x.min(), x.max()) == (-1, 1)
    np.testing.assert_array_equal(to_uint8(x), levels)


def test_every_16_bit_level_survives_the_trip_to_floats():
    levels = np.arange(65536, dtype=np.uint16).repeat(3).reshape(1, 256, 256, 3)
    x = to_unit(levels)
    assert (x.min(), x.max()) == (-1, 1)
    np.testing.assert_array_equal(to_uint16(x), levels)


def test_values_outside_the_range_are_clamped_and_the_middle_goes_to_even():
    x = torch.tensor([-3.0, 3.0, 0.0]).reshape(1, 1, 3, 1, 1)
    assert to_uint8(x).ravel().tolist() == [0, 255, 128]
    assert to_uint16(x).ravel().tolist() == [0, 65535, 32768]


def test_not_a_number_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        to_uint8(torch.full((1, 1, 3, 2, 2), float("nan")))


@pytest.mark.parametrize(
    "frames", [np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 4, 3), np.float32)]
)
def test_wrong_frames_are_refused(frames):
    with pytest.raises(ValueError, match="expected"):
        to_unit(frames)


@pytest.mark.parametrize(("count", "lengths"), [(0, []), (1, [1]), (4, [4]), (9, [4, 4, 1])])
def test_blocks_are_consecutive_and_the_last_may_be_short(count, lengths):
    pixels = np.zeros((2, 2, 3), np.uint8)
    cut = list(blocks((Frame(pixels, i, 1) for i in range(count)), 4))
    assert [len(block) for block in cut] == lengths
    assert [frame.pts for block in cut for frame in block] == list(range(count))


def test_blocks_read_no_further_than_they_yield():
    pulled = []

    def source():
        for i in range(10):
            pulled.append(i)
            yield Frame(np.zeros((2, 2, 3), np.uint8), i, 1)

    next(blocks(source(), 3))
    assert pulled == [0, 1, 2]
