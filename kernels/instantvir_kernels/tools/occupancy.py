"""How many programs of a kernel run at once on one multiprocessor of each architecture."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """What one streaming multiprocessor of an architecture holds (CUDA C programming guide)."""

    capability: int
    """10 major + minor."""
    shared_bytes_per_program: int
    shared_bytes: int
    max_warps: int
    max_programs: int
    registers: int = 65536

    def resident_programs(self, *, registers: int, shared_bytes: int, num_warps: int) -> int:
        """Programs of a kernel that run at once on one multiprocessor.

        Args:
            registers: per thread, as the compiler reports; allocated to warps in units of 256.
            shared_bytes: per program; the driver takes 1 KiB more for itself.
            num_warps: per program.
        """
        registers_per_warp = -(-registers * 32 // 256) * 256
        return min(
            self.max_programs,
            self.max_warps // num_warps,
            self.registers // (registers_per_warp * num_warps),
            self.shared_bytes // (shared_bytes + 1024),
        )


KIB = 1024
ARCHITECTURES = {
    architecture.capability: architecture
    for architecture in (
        Architecture(80, 163 * KIB, 164 * KIB, 64, 32),  # A100
        Architecture(86, 99 * KIB, 100 * KIB, 48, 16),  # RTX 30
        Architecture(89, 99 * KIB, 100 * KIB, 48, 24),  # RTX 40, L4
        Architecture(90, 227 * KIB, 228 * KIB, 64, 32),  # H100
        Architecture(100, 227 * KIB, 228 * KIB, 64, 32),  # B200
    )
}
