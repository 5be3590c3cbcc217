"""What Python's garbage collector need not look at again."""

import gc


def settle() -> None:
    """Keep what the start of the program made out of all later collections; call it once, before serving.

    Libraries and their tables are a few hundred thousand objects that never go. A full collection over them stopped the
    event loop for 60 to 90 ms in the midst of a round (`loop_busy_ms` in `make bench`).
    """
    gc.collect()
    gc.freeze()
