"""pHashes as 64-bit integers in Spark, 16 hexadecimal digits outside."""

from pyspark.sql import Column
from pyspark.sql import functions as F

#: Hashes of flat-colour images (black; any other colour): no evidence that two are the same.
FLAT = (0x0000000000000000, -0x8000000000000000)


def is_hash(text: Column) -> Column:
    """Whether a string is 1 to 16 hexadecimal digits, but for surrounding space; null of null."""
    return F.trim(text).rlike("^[0-9a-fA-F]{1,16}$")


def normalise(text: Column) -> Column:
    """16 lower-case hexadecimal digits, zeros added on the left."""
    return F.lpad(F.lower(F.trim(text)), 16, "0")


def to_signed(digits: Column) -> Column:
    """The 64 bits as a bigint; the hash's first bit becomes the sign.

    The target base −10 asks conv for a signed number: with 10 every hash whose first bit is set,
    which is every hash of a natural image, is above the largest bigint.
    """
    return F.conv(digits, 16, -10).cast("bigint")


def is_flat(bits: Column) -> Column:
    """Whether a signed hash is that of a flat colour."""
    return bits.isin(*FLAT)
