"""How the idle threads of a CPU computation wait. Nothing here imports torch: this must be set first."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

#: How long a waiting thread of torch keeps checking before it sleeps. GNU's OpenMP (Linux) counts checks, by
#: default some 300,000; Intel's and LLVM's (Windows, macOS) count milliseconds, by default 200. A checking
#: thread blocks a core for everything else: two runs side by side took three to thirty times as long as one
#: (see docs/performance.md).
WAITING = {"GOMP_SPINCOUNT": "5000", "KMP_BLOCKTIME": "0"}


def let_idle_threads_sleep(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Set `WAITING` in `environment`; child processes, such as a notebook's kernel, inherit it.

    Nothing is set if the user has already said how threads wait, or if torch is already loaded: OpenMP
    reads its settings only once, when it is loaded.

    Returns:
        Whether it was set.
    """
    if "torch" in sys.modules or any(name in environment for name in ("OMP_WAIT_POLICY", *WAITING)):
        return False
    environment.update(WAITING)
    return True
