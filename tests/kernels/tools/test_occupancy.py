from instantvir_kernels import tiles
from instantvir_kernels.tools.occupancy import ARCHITECTURES


def test_every_architecture_that_has_tiles_has_limits():
    assert set(ARCHITECTURES) == set(tiles.ARCHITECTURES)


def test_programs_on_one_multiprocessor_are_bounded_by_what_runs_out_first():
    a100 = ARCHITECTURES[80]
    by_registers = a100.resident_programs(registers=209, shared_bytes=0, num_warps=8)
    assert by_registers == 65536 // (216 * 32 * 8) == 1
    assert a100.resident_programs(registers=32, shared_bytes=80_000, num_warps=4) == 2
    assert a100.resident_programs(registers=16, shared_bytes=0, num_warps=4) == 64 // 4
    assert a100.resident_programs(registers=16, shared_bytes=0, num_warps=1) == 32
