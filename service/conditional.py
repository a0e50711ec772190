"""Conditional requests: whether the client has what it asks for already (RFC 9110, 13.1.2)."""

from __future__ import annotations


def matches(if_none_match: str | None, etag: str) -> bool:
    """Whether an If-None-Match names an entity tag, or any by `*`; weak tags count as strong."""
    if if_none_match is None:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return etag in tags or "*" in tags
