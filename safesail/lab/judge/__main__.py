"""`python -m safesail.lab.judge`: run the known-truth judge until it is stopped.

The first line of its output is its base URL.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import fields, replace

from safesail.errors import SafesailError
from safesail.lab.judge import QUALITIES, BatchBehaviour, Faults, KnownTruthJudge


def main() -> None:
    """Serve until the process is stopped."""
    arguments = _parser().parse_args()
    given = vars(arguments)
    quality = QUALITIES[arguments.quality]
    changed = {name: given[name] for name in ("misses", "false_alarms", "prompt_effect", "bias")}
    quality = replace(quality, **{name: v for name, v in changed.items() if v is not None})
    kinds = {one.name: given[one.name] for one in fields(Faults) if given[one.name] is not None}
    faults = replace(Faults.mixed(arguments.faults), **kinds)
    batches = BatchBehaviour(
        arguments.batch_delay, arguments.batch_failures, arguments.batches_expiring, arguments.seed
    )
    judge = KnownTruthJudge(
        quality,
        refusals=arguments.refusals,
        faults=faults,
        batches=batches,
        seed=arguments.seed,
        delay=arguments.delay,
        port=arguments.port,
    )
    with judge:
        sys.stdout.write(f"{judge.url}\n")
        sys.stdout.flush()
        while True:
            time.sleep(3600)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m safesail.lab.judge", description=__doc__)
    add = parser.add_argument
    add("--quality", choices=list(QUALITIES), default="good")
    for name in ("misses", "false-alarms", "prompt-effect", "bias"):
        add(f"--{name}", type=float, help="in place of what --quality gives")
    add("--refusals", type=float, default=0.0, help="share of questions refused")
    add("--faults", type=float, default=0.0, help="share of requests with a fault of any kind")
    for one in fields(Faults):
        add(f"--{one.name.replace('_', '-')}", type=float, help="share of requests")
    add("--batch-delay", type=float, default=BatchBehaviour.delay, help="seconds")
    add("--batch-failures", type=float, default=0.0, help="share of a batch's requests")
    add("--batches-expiring", type=int, default=0, help="so many batches expire")
    add("--seed", type=int, default=0)
    add("--delay", type=float, default=0.0, help="seconds that every response takes")
    add("--port", type=int, default=0, help="0: a free one")
    return parser


if __name__ == "__main__":
    try:
        main()
    except SafesailError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
