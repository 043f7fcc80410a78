"""How the C library treats memory that this process frees."""

import ctypes
import platform
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
_LARGEST_INT = 2**31 - 1
_TOP_PAD = 64 * 2**20


def keep_freed_memory() -> bool:
    """Keep freed memory for the next allocation instead of returning it to the kernel.

    A step of training or scoring allocates and frees the same large tensors again and again.
    glibc maps each of them anew, and the kernel fills every page with zeros when it is first
    touched. Memory that is kept is there already. It stays with the process until it ends, so this
    is for processes that train or score, and not for servers. No result changes.

    Returns:
        Whether it is so: on Linux with glibc only.
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _LARGEST_INT, _M_TOP_PAD: _TOP_PAD}
    set_option = ctypes.CDLL(None).mallopt
    return all([set_option(name, value) == 1 for name, value in settings.items()])
