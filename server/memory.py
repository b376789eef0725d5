"""What the process does with its memory, once all that stays for good is loaded."""

import gc

LARGEST = 32 * 2**20 - 2**16
"""Bytes; a little below the largest block whose release makes glibc raise its thresholds."""


def settle() -> None:
    """Called once, before the first call is answered."""
    gc.collect()
    gc.freeze()  # a full collection then stops the calls for 1 ms, not 50
    # Having released one mapped block, glibc keeps as much for the next (mallopt(3), "dynamic mmap
    # threshold"). Before that, the buffers of each call are returned to the kernel and mapped anew,
    # page by page, which takes longer than to decode 5 s of audio. Engines do it unless on a GPU.
    bytearray(LARGEST)
