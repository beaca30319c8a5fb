from coyo_labeler.em.tallies import COLUMNS
from coyo_labeler.formats import schemas


def test_the_tally_has_the_columns_of_the_model() -> None:
    assert schemas.TALLY.names == ["worker_id", *COLUMNS]


def test_a_posterior_can_be_read_as_beliefs() -> None:
    fields = [schemas.POSTERIOR.field(name) for name in schemas.BELIEFS.names]
    assert fields == list(schemas.BELIEFS)
