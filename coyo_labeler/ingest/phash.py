"""pHashes: signed 64-bit integers inside, 16 hexadecimal digits outside."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

#: Hashes of flat-colour images (black; any other colour): no evidence that two are the same.
FLAT = (0x0000000000000000, -0x8000000000000000)

_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)


def to_text(bits: npt.NDArray[np.int64]) -> pa.StringArray:
    """16 lower-case hexadecimal digits of each hash (n,)."""
    octets = bits.astype(">i8").view(np.uint8)
    digits = np.empty(2 * len(octets), np.uint8)
    digits[0::2], digits[1::2] = _DIGITS[octets >> 4], _DIGITS[octets & 15]
    offsets = np.arange(0, len(digits) + 1, 16, dtype=np.int32)
    return pa.StringArray.from_buffers(len(bits), pa.py_buffer(offsets), pa.py_buffer(digits))
