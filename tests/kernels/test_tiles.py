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
    found = tiles.architecture_of(capability)
    assert (found and found.capability) == expected


def test_every_architecture_has_a_tile_for_every_kernel_and_head_dimension():
    table = tiles.table()
    assert set(table) == set(tiles.ARCHITECTURES)
    for kernels in table.values():
        assert set(kernels) == set(tiles.KERNELS)
        for of_dim in kernels.values():
            assert set(of_dim) == set(tiles.HEAD_DIMS)


def test_a_table_survives_the_disk(tmp_path, monkeypatch):
    path = tmp_path / "tiles.json"
    tiles.write_table(tiles.table(), origin="a test", faster_than_sdpa={90: [128]}, path=path)
    monkeypatch.setattr(tiles, "TABLE_PATH", path)
    assert tiles.table.__wrapped__() == tiles.table()
    assert tiles.faster_than_sdpa.__wrapped__() == {90: [128]}


def test_programs_on_one_multiprocessor_are_bounded_by_what_runs_out_first():
    a100 = tiles.ARCHITECTURES[80]
    by_registers = a100.resident_programs(registers=209, shared_bytes=0, num_warps=8)
    assert by_registers == 65536 // (216 * 32 * 8) == 1
    assert a100.resident_programs(registers=32, shared_bytes=80_000, num_warps=4) == 2
    assert a100.resident_programs(registers=16, shared_bytes=0, num_warps=4) == 64 // 4
    assert a100.resident_programs(registers=16, shared_bytes=0, num_warps=1) == 32
