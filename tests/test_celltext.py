"""What a spreadsheet's cells show: values and number formats, against what spreadsheets display."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta

from cases import cases
from hypothesis import given
from hypothesis import strategies as st

from enroll.manifest.celltext import cell_text


@cases(
    ("value", "number_format", "text"),
    [
        # No format: whole numbers without a point, others in eleven characters.
        (4711, "General", "4711"),
        (4711.0, "General", "4711"),
        (-12, "General", "-12"),
        (0.1 + 0.2, "General", "0.3"),
        (3.14159265358979, "General", "3.141592654"),
        (-3.14159265358979, "General", "-3.141592654"),
        (0.123456789012, "General", "0.123456789"),
        (0.000123456789, "General", "0.000123457"),
        (0.00001234, "General", "0.00001234"),
        (0.0000123456789, "General", "1.23457E-05"),
        (0.00000000015, "General", "1.5E-10"),
        (9.99999999999, "General", "10"),
        (123456.789012, "General", "123456.789"),
        (1234567890.5, "General", "1234567891"),
        (12345678901.5, "General", "12345678902"),
        (123456789012.5, "General", "1.23457E+11"),
        (13800138000, "General", "13800138000"),
        (999999999999999, "General", "999999999999999"),
        (None, "General", ""),
        (None, None, ""),
        (True, "General", "TRUE"),
        (False, "General", "FALSE"),
        (" as it is ", "00000", " as it is "),
        ("#N/A", "General", "#N/A"),
        # Leading zeros.
        (7, "00000", "00007"),
        (7.0, "00000", "00007"),
        (123456, "00000", "123456"),
        (0, "000", "000"),
        (-7, "000", "-007"),
        # Literals between the digits, as in ids of several countries.
        (123456789, "000-00-0000", "123-45-6789"),
        (1234567890, "000\\-00\\-0000", "1234-56-7890"),
        (42, '"E"0000', "E0042"),
        (42, '"E-"0000" x"', "E-0042 x"),
        (5551234, "[<=9999999]###-####;(###) ###-####", "555-1234"),
        (8005551234, "[<=9999999]###-####;(###) ###-####", "(800) 555-1234"),
        # More places than a number has digits, and a bound that is no number.
        (0.5, "0." + "0" * 30, "0.5" + "0" * 29),
        (123456789012345, "#,##0." + "0" * 20, "123,456,789,012,345." + "0" * 20),
        (1.0, "0%" + "%" * 200, "1" + "0" * 402 + "%" * 201),
        (7, "[>1.2.3]000", "007"),
        # Points, groups, shares, scales.
        (3, "0", "3"),
        (2.5, "0", "3"),
        (-2.5, "0", "-3"),
        (-0.2, "0", "0"),
        (1.005, "0.00", "1.01"),
        (1234567.891, "#,##0.00", "1,234,567.89"),
        (1234567, "#,##0", "1,234,567"),
        (12, "#,##0", "12"),
        (0.5, "#.##", ".5"),
        (2, "0.##", "2."),
        (0.25, "0%", "25%"),
        (0.1234, "0.00%", "12.34%"),
        (1234567, "#,##0,", "1,235"),
        (5, "???", "  5"),
        # Sections.
        (-5, "0;(0)", "(5)"),
        (-5, "0;[Red]-0", "-5"),
        (0, '0;-0;"none"', "none"),
        (7, '"hidden"', "hidden"),
        (7, ";;;", ""),
        (7, "@", "7"),
        (12.5, "[$€-407] #,##0.00", "€ 12.50"),
        (12.5, '_-* #,##0.00 "kg"_-', " 12.50 kg "),
        # Of more digits than a spreadsheet keeps: nothing that could be taken for an id.
        (110101198003071234, "General", "1.10101E+17"),
        (110101198003071234, "0", "1.10101E+17"),
        (1.10101198003071e17, "000000000000000000", "1.10101E+17"),
        # What cannot be shown exactly is at least a number.
        (0.5, "# ?/?", "0.5"),
        (12345, "0.00E+00", "12345"),
        (0.00000000123456, "General", "1.23456E-09"),
    ],
)
def test_a_number_is_shown_as_its_cell_does(
    value: object, number_format: str | None, text: str
) -> None:
    assert cell_text(value, number_format) == text


AT = datetime(2026, 3, 5, 14, 7, 9)


@cases(
    ("value", "number_format", "text"),
    [
        (AT, "yyyy-mm-dd", "2026-03-05"),
        (AT, "yyyymmdd", "20260305"),
        (AT, "dd.mm.yyyy", "05.03.2026"),
        (AT, "d.m.yy", "5.3.26"),
        (AT, "DD/MM/YYYY", "05/03/2026"),
        (AT, "d mmm yyyy", "5 Mar 2026"),
        (AT, "dddd, d mmmm yyyy", "Thursday, 5 March 2026"),
        (AT, "ddd mmmmm", "Thu M"),
        (AT, 'yyyy"年"m"月"d"日"', "2026年3月5日"),
        (AT, "[$-409]d\\-mmm\\-yy;@", "5-Mar-26"),
        (AT, "h:mm", "14:07"),
        (AT, "hh:mm:ss", "14:07:09"),
        (AT, "h:mm AM/PM", "2:07 PM"),
        (AT, "mm:ss", "07:09"),
        (AT, "mm/dd hh:mm", "03/05 14:07"),
        (AT, "yyyy-mm-dd\\Thh:mm:ss", "2026-03-05T14:07:09"),
        # The system's own formats look different in every country.
        (AT, "mm-dd-yy", "2026-03-05"),
        (AT, "m/d/yy h:mm", "2026-03-05 14:07"),
        (AT, "[$-F800]dddd\\,\\ mmmm\\ dd\\,\\ yyyy", "2026-03-05"),
        (date(2026, 3, 5), "dd.mm.yyyy", "05.03.2026"),
        (time(9, 30), "h:mm", "9:30"),
        (timedelta(hours=30, minutes=5), "[h]:mm", "30:05"),
        (timedelta(minutes=90), "[mm]:ss", "90:00"),
        (datetime(2026, 3, 5, 23, 59, 59, 999_900), "yyyy-mm-dd hh:mm", "2026-03-06 00:00"),
        (datetime(2026, 3, 5, 1, 2, 3, 450_000), "ss.00", "03.45"),
    ],
)
def test_a_moment_is_shown_as_its_cell_does(value: object, number_format: str, text: str) -> None:
    assert cell_text(value, number_format) == text


@given(st.integers(min_value=0, max_value=10**15 - 1), st.integers(min_value=1, max_value=15))
def test_zeros_fill_a_number_up_and_take_nothing_away(number: int, width: int) -> None:
    assert cell_text(number, "0" * width) == str(number).zfill(width)
    assert cell_text(float(number), "0" * width) == str(number).zfill(width)


@given(
    st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.datetimes(),
    st.text(alphabet='0#?.,%;@[]<>=$-"\\_*ymdhsAMPE/+ :x€', max_size=20),
)
def test_no_format_whatever_it_is_ends_a_run(value: object, number_format: str) -> None:
    assert isinstance(cell_text(value, number_format), str)
