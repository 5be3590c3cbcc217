"""Libraries that talk or fetch on their own are quietened before they are imported; only worker processes do this."""

import logging
import os
import sys
import warnings


def quieten() -> None:
    """Hide the `kernels` package, and keep progress bars, advice and per-matmul log lines off the worker's stderr.

    With `kernels` installed bitsandbytes and transformers fetch compiled code from a hub: no volunteer agreed to that.
    """
    sys.modules["kernels"] = None  # type: ignore[assignment]  # None is how Python says: this import fails
    os.environ.setdefault("BITSANDBYTES_NOWELCOME", "1")
    warnings.filterwarnings("ignore", module=r"bitsandbytes|peft|transformers|torch")
    # LLM.int8 on a CPU logs one line for every matrix product.
    for name in ("bitsandbytes", "bitsandbytes.autograd._functions", "transformers", "peft", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def prepare(threads: int) -> None:
    """Quieten the libraries and give torch so many threads: for a process that trains without a worker's room."""
    quieten()
    import torch

    torch.set_num_threads(threads)
