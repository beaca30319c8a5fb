import numpy as np

from coyo_labeler.hashing import splitmix64

#: The first numbers of Vigna's splitmix64.c (prng.di.unimi.it) for two seeds.
PUBLISHED = {
    0: [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
        0xF88BB8A8724C81EC,
        0x1B39896A51A8749B,
    ],
    1234567: [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ],
}


def test_the_numbers_are_those_of_the_published_generator() -> None:
    seeds = np.array(list(PUBLISHED))
    for step in range(5):
        expected = [numbers[step] for numbers in PUBLISHED.values()]
        assert splitmix64(seeds, step + 1).tolist() == expected


def test_a_negative_seed_counts_as_its_64_bits() -> None:
    signed, unsigned = np.array([-1], np.int64), np.array([2**64 - 1], np.uint64)
    assert splitmix64(signed) == splitmix64(unsigned)
