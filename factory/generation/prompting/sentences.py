"""Cleaning of proposed sentences. A candidate is untrusted text: it is cleaned, or rejected with a reason.

Sentences only ever become prompts of a video model, captions and text in reports. No file name is made from them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

from zoo.errors import OptionError

SHORTEST, LONGEST, MOST_WORDS = 3, 160, 28
_LONGEST_CATEGORY = 60
# Markup, code, paths and addresses never occur in a description of a motion.
_MARKUP = re.compile(r"[<>{}\[\]`|=#$*_~^&;]|\)\s*\(")
_PATH = re.compile(r"[/\\]|\.\.|://|\bwww\.|\w\.\w{2,4}\b|@|%[0-9a-fA-F]{2}")
# Sentences addressed to a language model instead of describing the object.
_INSTRUCTION = re.compile(
    r"\b(ignore|disregard|forget|override)\b.*\b(instruction|previous|above|prompt|rule)s?\b"
    r"|\b(system|developer|assistant|user)\s*:|\b(api|secret) key\b|\bpassword\b|\bas an ai\b|\bi cannot\b|\bi can't\b"
    r"|\b(read|write|open|delete|create|download|execute|run|print)s?\b.*\b(file|folder|directory|command|script|code|url)s?\b",
    re.IGNORECASE,
)
# The camera and the scene must stay still, and the object must stay what it is.
_CAMERA = re.compile(
    r"\b(camera|zooms? (in|out)|pans? (left|right|across)|close-?up|scene|shot|background|frame)\b", re.I
)
_NUMBERING = re.compile(r"^\s*(?:[-•–]|\(?\d{1,3}[.):])\s+")


def clean_category(category: str) -> str:
    """The object's name as one short line.

    Raises:
        OptionError: it is empty, too long, or not a name.
    """
    if not isinstance(category, str):
        raise OptionError(f"category: expected a word or two, e.g. 'otter', got {category!r}")
    name = " ".join(unicodedata.normalize("NFKC", category).split())
    if not name or len(name) > _LONGEST_CATEGORY or not name.isprintable() or _MARKUP.search(name):
        raise OptionError(
            f"category: expected a word or two, e.g. 'otter', of at most {_LONGEST_CATEGORY} characters, got "
            f"{category[:80]!r}"
        )
    return name


def clean_sentence(text: object, category: str = "") -> tuple[str, str]:
    """Clean one candidate.

    Args:
        text: the candidate, of any type.
        category: the object; a leading "The kangaroo" is removed.

    Returns:
        (sentence, "") or ("", reason). Reasons are keys of the plan's counts.
    """
    if not isinstance(text, str):
        return "", "not_text"
    if len(text) > 4 * LONGEST:  # before any other work on it
        return "", "too_long"
    text = unicodedata.normalize("NFKC", text)
    if any(
        unicodedata.category(char) in ("Cc", "Cf", "Co", "Cs", "Cn") and char not in "\t\n\r" for char in text
    ):
        return "", "control_characters"
    if len([line for line in text.splitlines() if line.strip()]) > 1:
        return "", "several_lines"
    text = _NUMBERING.sub("", " ".join(text.split())).strip(" \"'“”‘’")
    text = text.rstrip(".!… ")
    subject = re.compile(rf"^(?:(?:the|a|an|this)\s+)?(?:{re.escape(category)}|it|he|she)\s+", re.I)
    text = subject.sub("", text) if category else text
    for reason, pattern in (
        ("instruction", _INSTRUCTION),
        ("path", _PATH),
        ("markup", _MARKUP),
        ("camera", _CAMERA),
    ):
        if pattern.search(text):
            return "", reason
    if len(text) > LONGEST or len(text.split()) > MOST_WORDS:
        return "", "too_long"
    if len(text) < SHORTEST or not text[0].isalpha():
        return "", "empty" if not text else "no_sentence"
    return text[0].lower() + text[1:], ""


def clean_sentences(candidates: Iterable[object], category: str) -> tuple[list[str], Counter[str]]:
    """Clean many candidates; rejected ones are counted as "rejected_REASON"."""
    kept, counts = [], Counter[str]()
    for candidate in candidates:
        sentence, reason = clean_sentence(candidate, category)
        if reason:
            counts[f"rejected_{reason}"] += 1
        else:
            kept.append(sentence)
    return kept, counts


def same_words(sentence: str) -> str:
    """A key that is equal for sentences that differ only in case, punctuation and spaces."""
    return " ".join(re.findall(r"\w+", sentence.casefold()))
