import pytest

from gateway.model.catalogue import Catalogue


def test_what_was_encoded_is_kept_within_bounds_of_number_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.model.catalogue._MAX_ENCODED_BYTES", 100)
    catalogue, made = Catalogue(), list[int]()

    def encoded(key: int, size: int) -> bytes:
        return catalogue.encoded(key, lambda: made.append(key) or b"x" * size)  # type: ignore[func-returns-value]

    encoded(1, 60)
    encoded(1, 60)
    assert made == [1]
    encoded(2, 60)  # which leaves no room for the first
    encoded(1, 60)
    assert made == [1, 2, 1]
    encoded(3, 500)
    encoded(3, 500)
    assert made == [1, 2, 1, 3, 3]
    for key in range(10, 200):
        encoded(key, 0)
    assert len(catalogue._encoded) <= 64
