import pytest
import torch

from instantvir_models.autoencoders.haar import haar, inverse_haar


@pytest.mark.parametrize("shape", [(1, 3, 8, 12), (2, 1, 2, 2), (3, 7, 6, 4)])
def test_the_latent_loses_nothing_and_keeps_energy(shape):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bands = haar(x)
    assert bands.shape == (shape[0], 4 * shape[1], shape[2] // 2, shape[3] // 2)
    torch.testing.assert_close(inverse_haar(bands), x)
    torch.testing.assert_close(bands.square().sum(), x.square().sum())


def test_a_flat_frame_lives_in_the_average_band():
    bands = haar(torch.full((1, 3, 4, 4), 0.5))
    assert (bands[:, :3] == 1.0).all()
    assert (bands[:, 3:] == 0.0).all()
