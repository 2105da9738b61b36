"""Secrets and broken text are taken out before anything is written. Does not know what the records are for."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

REDACTED = "[redacted]"
_INT64 = 1 << 63

_HINT = re.compile(
    rb"sk-|sk_live|rk_live|gh[posu]_|github_pat_|glpat-|xox|a[ks]ia|aiza|hf_|npm_|pypi-|eyj|bearer |basic |-----begin"
    rb"|pass|pwd|secret|token|key|authorization|credential|://"
)
"""What every secret that we know has in it, in lower case: most texts are let through by this one look."""
_NAMES = r"pass(?:word|wd|phrase)?|pwd|secret|token|(?:api|access|private)[_-]?key|authorization|credentials?"
_PREFIXES = (
    "sk-|sk_live_|rk_live_|ghp_|gho_|ghs_|ghu_|github_pat_|glpat-|xox[abprs]-|AKIA|ASIA|AIza|hf_|npm_|pypi-"
)
_SECRET = re.compile(
    "|".join(
        (
            r"-----BEGIN[ A-Z]*PRIVATE KEY-----[\s\S]*?(?:-----END[ A-Z]*PRIVATE KEY-----|\Z)",
            rf"\b(?:{_PREFIXES})[\w-]{{12,}}",
            r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{4,}",
            r"(?<=://)[^\s/:@]{0,64}:[^\s/@]{1,256}(?=@)",
            r"(?i:(?<=bearer )|(?<=basic ))[\w.~+/=-]{8,}",
            rf"(?i:(?:^|(?<=[^a-z]))(?:[a-z0-9]+[_-])*(?:{_NAMES})[\"']?\s*[=:]\s*[\"']?)(?P<value>[^\s\"',;&]{{4,}})",
        )
    )
)
_SECRET_NAME = re.compile(rf"(?:.*[^a-z])?(?:{_NAMES})", re.IGNORECASE)

R = TypeVar("R", bound=msgspec.Struct)


def clean_text(text: str) -> str:
    """The text with secrets replaced by ``[redacted]`` and lone surrogates written as escapes."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return _SECRET.sub(_without_value, text)


def _without_value(match: re.Match[str]) -> str:
    value = match["value"]
    return REDACTED if value is None else match[0][: -len(value)] + REDACTED


def clean(value: Any) -> Any:
    """The same JSON-like value without secrets; values under names such as ``password`` go whole."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean(name): _clean_named(name, inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [clean(inner) for inner in value]
    return valid(value)


def _clean_named(name: Any, value: Any) -> Any:
    if isinstance(name, str) and isinstance(value, str) and value and _SECRET_NAME.fullmatch(name):
        return REDACTED
    return clean(value)


class Redactor:
    """Makes records fit to rest: JSON-like, valid UTF-8 and, unless ``secrets`` are to be kept, without secrets."""

    def __init__(self, *, secrets: bool = True) -> None:
        self._secrets = secrets
        self._encode = msgspec.msgpack.Encoder(enc_hook=repr).encode

    def __call__(self, record: R) -> R:
        """An equal record, or one whose texts were cleaned. What is not JSON-like becomes its ``repr``."""
        try:
            encoded = self._encode(msgspec.structs.astuple(record))
        except (UnicodeEncodeError, OverflowError):
            return self._cleaned(record)
        if not self._secrets:
            return record
        return self._cleaned(record) if _suspicious(encoded) else record

    def text(self, text: str) -> str:
        """One text, cleaned."""
        encoded = text.encode("utf-8", "backslashreplace")
        return clean_text(text) if self._secrets and _suspicious(encoded) else encoded.decode()

    def _cleaned(self, record: R) -> R:
        plain = msgspec.to_builtins(record, enc_hook=repr)
        value = clean(plain) if self._secrets else valid(plain)
        return msgspec.convert(value, type(record))


def _suspicious(encoded: bytes) -> bool:
    return _HINT.search(encoded.lower()) is not None


def valid(value: Any) -> Any:
    """The same JSON-like value in valid UTF-8 and with integers of 64 bits; larger ones become texts."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {valid(name): valid(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [valid(inner) for inner in value]
    return str(value) if isinstance(value, int) and not -_INT64 <= value < _INT64 else value
