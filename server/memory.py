"""What the process does with its memory, once all that stays for good is loaded."""

import gc

YOUNG, MIDDLE, OLD = 20_000, 20, 50
"""When Python looks for cycles: objects made and not freed since, and of the generations before
how often. The default of 700 objects is reached every few calls, which leave no cycles that matter
(tests/test_letting_go.py)."""

LARGEST = 32 * 2**20 - 2**16
"""Bytes; a little below the largest block whose release makes glibc raise its thresholds."""


def settle() -> None:
    """Called once, before the first call is answered."""
    gc.collect()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
    gc.freeze()  # a full collection then stops the calls for 1 ms, not 50
    # Having released one mapped block, glibc keeps as much for the next (mallopt(3), "dynamic mmap
    # threshold"). Before that, the buffers of each call are returned to the kernel and mapped anew,
    # page by page, which takes longer than to decode 5 s of audio. Engines do it unless on a GPU.
    bytearray(LARGEST)
