"""What `instantvir stream` says about where it writes and serves."""

from contextlib import ExitStack

import pytest

from instantvir_cli import console
from instantvir_cli.stream import _begin
from instantvir_models.live.controls import Controls
from instantvir_models.live.preview import LatestPair, PreviewServer
from tests.models.test_live_parts import STATUS


@pytest.mark.parametrize(
    ("host", "token", "is_shown"), [("0.0.0.0", None, True), ("0.0.0.0", "known", False)]
)
def test_a_token_nobody_else_knows_is_shown_even_when_quiet(capsys, host, token, is_shown):
    server = PreviewServer(
        host=host, port=0, pairs=LatestPair(), controls=Controls(), status=lambda: STATUS,
        token=token,
    )  # fmt: skip
    was_quiet, console.console.quiet = console.console.quiet, True
    try:
        with ExitStack() as stack:
            _begin(server, "preview", stack)
    finally:
        console.console.quiet = was_quiet
    assert (server.url in capsys.readouterr().err) is is_shown
