from retina_codec.report.page.words import count, listed, measured, number, percent, plural, signed

NAN = float("nan")


def test_numbers_are_written_as_people_write_them():
    assert number(0.8149) == "0.81"
    assert number(None) == number(NAN) == percent(None) == "–"
    assert percent(0.934) == "93\u00a0%"
    assert percent(0.0123) == "1.2\u00a0%"
    assert percent(0.00456) == "0.46\u00a0%"
    assert percent(0.00001) == "0.001\u00a0%"
    assert percent(0.0) == "0\u00a0%"
    assert percent(0.00142, 2) == "0.14\u00a0%"
    assert signed(-0.256) == "−0.26"
    assert (count(1234.4), count(2.5e9)) == ("1,234", "2.5e+09")


def test_what_is_not_measured_is_never_a_zero():
    assert measured(None) == measured(NAN) == "not measured"
    assert measured(0.0) == "0.00"
    assert measured(-1.25, 1) == "−1.2"


def test_lists_and_nouns():
    assert listed([]) == "none"
    assert listed(["a"]) == "a"
    assert listed(["a", 2, "c"]) == "a, 2 and c"
    assert (plural(1, "cell"), plural(0, "cell"), plural(3, "cell")) == (
        "1 cell",
        "0 cells",
        "3 cells",
    )
