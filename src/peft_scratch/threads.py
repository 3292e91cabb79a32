"""How the idle threads of a CPU computation wait. Nothing here imports torch: it has to come before."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

#: A thread of torch's that waits for the others looks so often whether it may go on, then sleeps. GNU's
#: OpenMP (Linux) counts looks, and by itself some 300,000; Intel's and LLVM's (Windows, macOS) milliseconds,
#: and by itself 200. While it looks it keeps a core from everything else: two runs side by side took three to
#: thirty times as long as one (see docs/performance.md).
WAITING = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}


def let_idle_threads_sleep(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Set `WAITING` in `environment`, which child processes, as of a notebook, inherit.

    Nothing is set where the user has said how threads are to wait, or where torch is loaded already:
    OpenMP reads its settings once, as it is loaded.

    Returns:
        Whether it was set.
    """
    if "torch" in sys.modules or any(name in environment for name in ("OMP_WAIT_POLICY", *WAITING)):
        return False
    environment.update(WAITING)
    return True
