"""The command line in this process, against a running gateway."""

import os
from collections.abc import Callable

from typer.testing import CliRunner, Result

from gateway.cli.main import cli

Run = Callable[..., Result]


def runner(url: str) -> Run:
    """Runs a command against the gateway at a URL, with nothing of this process's own settings; `code` is awaited."""

    def run(*words: str, code: int = 0, **environment: str) -> Result:
        others = dict.fromkeys(name for name in os.environ if name.startswith(("GATEWAY_", "LITELLM_")))
        known = {**others, "GATEWAY_URL": url, "TERM": "dumb", **environment}
        done = CliRunner().invoke(cli, words, env=known)
        assert done.exit_code == code, done.output
        return done

    return run
