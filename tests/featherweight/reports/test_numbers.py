import pytest

from featherweight.reports.numbers import spread, three_digits, with_interval


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.9541, "0.954"), (12.34, "12.3"), (1739.6, "1,740"), (0.5, "0.5"), (20.0, "20"),
        (0.0, "0"), (999.6, "1,000"), (9.999, "10"), (0.000012345, "0.0000123"),
        (12_345_678, "12,300,000"), (-1739.6, "-1,740"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits_and_no_exponent(value: float, shown: str) -> None:
    assert three_digits(value) == shown


def test_scores_have_their_interval_or_deviation() -> None:
    assert with_interval(0.94712, (0.93512, 0.95898)) == "0.9471 [0.935, 0.959]"
    assert spread([0.9, 0.92, 0.94]) == "0.9200 ± 0.0200"
    assert spread([0.9]) == "0.9000"
