"""How long `safesail --help` takes over bare Python: medians of paired runs.

python benchmarks/startup.py [--json] [--runs N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    """Time both commands in turn and print what safesail adds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    safesail = str(Path(sys.executable).with_name("safesail"))
    bare, helped = [], []
    for _ in range(options.runs + 1):
        bare.append(_seconds([sys.executable, "-c", "pass"]))
        helped.append(_seconds([safesail, "--help"]))
    # The first pair warms the disk cache and does not count.
    added = [full - floor for floor, full in zip(bare[1:], helped[1:], strict=True)]
    result = {
        "runs": options.runs,
        "bare_python_seconds": statistics.median(bare[1:]),
        "safesail_help_seconds": statistics.median(helped[1:]),
        "added_seconds": statistics.median(added),
    }
    if options.json:
        print(json.dumps(result, indent=2))
        return
    print(f"python -c pass   {result['bare_python_seconds']:.3f} s")
    print(f"safesail --help  {result['safesail_help_seconds']:.3f} s")
    print(f"added            {result['added_seconds']:.3f} s (claim: below 0.2 s)")


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
