"""Text that others wrote, as a page or a table may show it. Pure."""


def one_line(text: str, limit: int) -> str:
    """`text` in one line of at most `limit` characters, without what could steer a terminal or a pager."""
    text = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return "".join(char if char.isprintable() else "?" for char in text)
