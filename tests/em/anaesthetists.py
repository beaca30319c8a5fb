"""Table 1 of Dawid & Skene (1979): five anaesthetists grade 45 patients, 1 to 4.

Applied Statistics 28 (1), 20-28. One string a patient: the first anaesthetist's three readings,
then one each of the other four.
"""

READINGS = [
    "1111111",
    "3334334",
    "1122122",
    "2223121",
    "2223222",
    "2223322",
    "1222111",
    "3333433",
    "2222223",
    "2322223",
    "4444444",
    "2223343",
    "1111111",
    "2223212",
    "1211111",
    "1112111",
    "1111111",
    "1111111",
    "2222221",
    "2221322",
    "2222222",
    "2222221",
    "2223222",
    "2212222",
    "1111111",
    "1111111",
    "2322222",
    "1111111",
    "1111111",
    "1121121",
    "1111111",
    "3333233",
    "1111111",
    "2222222",
    "2223232",
    "4334343",
    "2212232",
    "2323233",
    "3333432",
    "1111111",
    "1111111",
    "1212111",
    "2322222",
    "1211111",
    "2222222",
]

OBSERVER = (0, 0, 0, 1, 2, 3, 4)


def votes():
    """(patient, observer, grade − 1) rows."""
    return [
        (patient, observer, int(grade) - 1)
        for patient, grades in enumerate(READINGS)
        for observer, grade in zip(OBSERVER, grades, strict=True)
    ]
