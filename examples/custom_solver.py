"""Restore with a method of your own: it streams, tiles, counts and reports as every other does.

    python examples/custom_solver.py examples/flower-blurred.mp4 restored.mp4

One method says what becomes of a block of frames; time, files and bit depth are the session's.
"""

import sys
from dataclasses import dataclass

import instantvir


@dataclass(frozen=True)
class Landweber(instantvir.Solver[None]):
    """Gradient descent on |A x - y|^2, ended before the noise comes up (Landweber 1951)."""

    steps: int = 20

    @property
    def frames_per_block(self) -> int:
        return 3

    def restore_block(self, window: instantvir.Window, state: None) -> instantvir.Restored:
        y, operator = window.measurement.y, window.measurement.operator
        x = operator.A_adjoint(y)
        for _ in range(self.steps):
            x = x - operator.A_adjoint(operator.A(x) - y)
        return instantvir.Restored(x, std=x.new_full((len(x),), 0.05))


def main(source: str, destination: str) -> None:
    """Restore `source`, which was blurred by a Gaussian of 3 px."""
    report = instantvir.restore(
        source, destination, operator="blur:sigma=3+noise:std=2.55", solver=Landweber()
    )
    print(f"{report.frames} frames by {report.model}; |A x - y| / |y| is {report.residual:.4f}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except instantvir.InstantVIRError as error:
        sys.exit(f"{error}\n{error.hint or ''}")
