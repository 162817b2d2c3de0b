"""`python -m instantvir_cli`, for programs that start modules such as `torchrun`."""

from instantvir_cli.app import app

if __name__ == "__main__":
    app(prog_name="instantvir")
