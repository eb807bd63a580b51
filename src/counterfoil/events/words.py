"""The input rule of words that are written in small letters, such as an event's type or an alert's kind."""

from __future__ import annotations

from counterfoil.events.rules import BLANKS, Candidates, Normalised, invalid


def small_word(value: object, field: str, normalised: Normalised, path: str = "") -> str | None:
    """A word, trimmed and lowered; null and blank are missing. Which words fit is for the caller to say."""
    if value is None:
        return None
    if type(value) is not str:
        raise invalid(path or field, "must be a string")
    text = value.strip(BLANKS)
    if text.isascii():  # lower() makes ASCII letters of others
        text = text.lower()
    if text and text != value:
        normalised(field)
    return text or None


def first_small_word(candidates: Candidates, field: str, normalised: Normalised) -> tuple[str, str] | None:
    """The first word among the candidates that is not missing, after the key that it came under."""
    for path, value in candidates:
        found = small_word(value, field, normalised, path)
        if found is not None:
            return path, found
    return None


def one_small_word_of(
    value: object, field: str, choices: tuple[str, ...], normalised: Normalised
) -> str | None:
    """One of some words; null and blank are missing."""
    found = small_word(value, field, normalised)
    if found is not None and found not in choices:
        raise invalid(field, f"must be one of {', '.join(choices)}")
    return found
