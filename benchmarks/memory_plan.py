"""What of a full-size student fits which card: a table, planned and not measured.

    python benchmarks/memory_plan.py [--size 832x480] [--cards 24 16 12 8 6 4]

A card is taken to be free but for 0.5 GB, which a CUDA context and a desktop may take (assumed, not
measured), and for the reserve that `instantvir` leaves on it.
"""

import argparse

import torch

from instantvir_models.autoencoders.lean import LeanConfig
from instantvir_models.autoencoders.wan import WanVaeConfig
from instantvir_models.errors import UsageError
from instantvir_models.students.wan.fit import RESERVE_BYTES, RESERVE_SHARE
from instantvir_models.students.wan.plan import plan_memory, plan_that_fits
from instantvir_models.students.wan.student import Footprint, WanSettings
from instantvir_models.students.wan.transformer import WanConfig

CONTEXT_BYTES = 0.5e9
"""Assumed of what is taken before anything is computed: libraries of the card, a desktop."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", default="832x480")
    parser.add_argument("--cards", type=int, nargs="+", default=[24, 16, 12, 8, 6, 4])
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    settings = WanSettings()
    print("| student | card, GiB | plan, GB | history, latents | given up |")
    print("|---|---|---|---|---|")
    for name, autoencoder in (("wan-lean", LeanConfig()), ("wan", WanVaeConfig())):
        whole = plan_memory(
            WanConfig(), autoencoder, settings,
            Footprint(settings.window_latents, settings.latents_per_block),
            height=height, width=width, dtype=torch.bfloat16, text_rows=1,
        )  # fmt: skip
        for card in given.cards:
            budget = card * 2**30 * (1 - RESERVE_SHARE) - RESERVE_BYTES - CONTEXT_BYTES
            try:
                plan = plan_that_fits(
                    WanConfig(), autoencoder, settings, height=height, width=width,
                    dtypes=[torch.bfloat16], budget_bytes=budget, can_rest=True, text_rows=1,
                )  # fmt: skip
            except UsageError as error:
                print(f"| {name} | {card} | - | - | {error} |")
                continue
            words = "; ".join(plan.given_up(whole)) or "nothing"
            window = plan.footprint.window_latents
            print(f"| {name} | {card} | {plan.total / 1e9:.2f} | {window} | {words} |")


if __name__ == "__main__":
    main()
