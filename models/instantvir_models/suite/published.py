"""What papers say, as their authors give it: another size, other clips, weights and machines than here."""

from instantvir_models.suite.results import Published

TABLE = "InstantViR, arXiv 2511.14208, table at 832x480 on one A100; OpenSora and REDS30 clips"

_FVD = {
    "DPS": (375.81, 711.61, 783.10),
    "DiffIR2VR-Zero": (None, 311.61, None),
    "SVI": (219.90, 176.60, 154.38),
    "VISION-XL": (224.74, 172.79, 138.79),
    "InstantViR (Wan)": (136.06, 153.13, 110.51),
    "InstantViR (LeanVAE)": (132.59, 156.43, 103.45),
}
_PSNR = {
    "SVI": (29.42, 33.85, 26.93),
    "VISION-XL": (30.83, 35.69, 30.03),
    "InstantViR (Wan)": (30.54, 34.91, 31.85),
    "InstantViR (LeanVAE)": (31.78, 27.04, 31.16),
}
_LPIPS = {
    "SVI": (0.17, 0.17, 0.31),
    "VISION-XL": (0.25, 0.24, 0.28),
    "InstantViR (Wan)": (0.12, 0.23, 0.17),
    "InstantViR (LeanVAE)": (0.13, 0.22, 0.15),
}
_SPEED = {
    "DPS": (0.02, True),
    "DiffIR2VR-Zero": (0.12, False),
    "SVI": (0.29, False),
    "VISION-XL": (0.17, True),
    "InstantViR (Wan)": (13.91, False),
    "InstantViR (LeanVAE)": (35.56, False),
}
TASK_ORDER = ("inpaint", "sr", "deblur")


def published() -> tuple[Published, ...]:
    """Every figure of that table."""
    quality = [
        Published(system=system, task=task, measure=measure, value=value, source=TABLE)
        for measure, table in (("psnr", _PSNR), ("lpips", _LPIPS), ("fvd", _FVD))
        for system, values in table.items()
        for task, value in zip(TASK_ORDER, values, strict=True)
        if value is not None
    ]
    speed = [
        Published(
            system=system, task="", measure="frames_per_second", value=value, is_below=is_below,
            source=TABLE,
        )
        for system, (value, is_below) in _SPEED.items()
    ]  # fmt: skip
    return (*quality, *speed)
