"""What the dataset card of COYO-Labeled-300M says about it, to compare a copy with."""

#: By the least probability of a label: labels per image, classes used, share of images kept.
TABLE = {
    0.00: (50.00, 21_841, 1.0000),
    0.05: (3.16, 18_922, 0.9669),
    0.10: (1.98, 18_471, 0.8583),
    0.15: (1.58, 18_122, 0.7449),
    0.20: (1.37, 17_781, 0.6430),
    0.25: (1.26, 17_479, 0.5560),
}

#: The probabilities of the table, ascending.
THRESHOLDS = tuple(TABLE)
