"""Texts that PostgreSQL can store."""


def storable(text: str, max_chars: int) -> str:
    """Return the beginning of a text. NUL and lone surrogates, which PostgreSQL cannot store, are replaced."""
    return text[:max_chars].encode("utf-8", "replace").decode("utf-8").replace("\x00", "�")
