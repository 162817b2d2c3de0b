import pytest

from instantvir_kernels import tiles


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((8, 0), 80), ((8, 6), 86), ((8, 7), 86), ((8, 9), 89), ((9, 0), 90), ((10, 0), 100),
        ((10, 3), 100), ((12, 0), None), ((7, 5), None), ((7, 0), None),
        ((11, 0), None), ((13, 0), None),
    ],
)  # fmt: skip
def test_a_card_uses_the_closest_tiles_below_it_in_its_generation(capability, expected):
    assert tiles.architecture_of(capability) == expected


def test_every_architecture_has_a_tile_for_every_kernel_and_head_dimension():
    table = tiles.table()
    assert set(table) == set(tiles.ARCHITECTURES)
    for kernels in table.values():
        assert set(kernels) == set(tiles.KERNELS)
        for of_dim in kernels.values():
            assert set(of_dim) == set(tiles.HEAD_DIMS)
