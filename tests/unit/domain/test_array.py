"""How many elements an array may have, and what is told where there would be more."""

from __future__ import annotations

import pytest

from gpuq.domain.array import MAX_ELEMENTS, parse_array
from gpuq.errors import UsageError


def test_an_array_has_at_most_so_many_elements_however_far_they_reach() -> None:
    assert len(parse_array(f"1-{MAX_ELEMENTS}").indices) == MAX_ELEMENTS
    assert len(parse_array(f"0-{3 * MAX_ELEMENTS - 1}:3").indices) == MAX_ELEMENTS
    for text in (f"0-{MAX_ELEMENTS}", f"0-{MAX_ELEMENTS + 50_000}", f"0-{3 * MAX_ELEMENTS}:3", f"0-{2**31 - 1}"):
        with pytest.raises(UsageError, match=f"at most {MAX_ELEMENTS} elements, smaller index first"):
            parse_array(text)
    with pytest.raises(UsageError, match="an index or a step is larger than"):
        parse_array(f"0-{2**31}")
    with pytest.raises(UsageError, match=f"at most {MAX_ELEMENTS} elements"):
        parse_array(f"0-{MAX_ELEMENTS - 1},{MAX_ELEMENTS}")
    with pytest.raises(UsageError, match="an index appears twice"):
        parse_array("0-4,4")
