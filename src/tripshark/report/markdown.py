"""The report as Markdown: the same document as the page, with nothing in it that a renderer could take for markup.

Words that look like an address, a path, a name or a mention become code, in which nothing is linked or pictured; every
other word has its punctuation escaped. No HTML is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain

from tripshark.report.document import (
    As,
    Block,
    Chapter,
    Claim,
    Document,
    Facts,
    Paragraph,
    Points,
    Section,
    Table,
    Verbatim,
)
from tripshark.report.picture import Picture

_MARKUP = re.compile(r"([\\`*_\[\]<>|~&$])")
_NUMBERED = re.compile(r"([0-9]{1,9})([.)])")
_BAR = re.compile(r"(\\*)\|")
_LINKED = re.compile(r"[@/]|\w[.:]\w|www\.|://|\.\w", re.IGNORECASE)
_TAIL = re.compile(r"[.,;:!?)”’]+$")
_HEAD = re.compile(r"^[(“‘]+")
_NUMBER = re.compile(r"[+−-]?[0-9][0-9.,:-]*%?")


def write(document: Document) -> bytes:
    """The whole report, in UTF-8."""
    head = [
        f"# {prose(document.title)}",
        f"Incident {code(document.incident)}. Severity: **{document.severity.value}**.",
        *(prose(sentence) for sentence in document.lead.split("\n")),
        _facts(document.facts),
    ]
    parts = chain.from_iterable(_chapter(each) for each in document.chapters)
    named = ", ".join(code(each) for each in document.manifests)
    foot = f"---\n\nWritten by {prose(document.made_by)} about the manifest with SHA-256 {named}."
    whole = "\n\n".join(filter(None, [*head, *parts, foot])) + "\n"
    return whole.encode("utf-8", "backslashreplace")


@lru_cache(maxsize=4096)
def prose(text: str) -> str:
    """Words of a sentence; one line."""
    words = text.split()
    if not words:
        return ""
    first = _word(words[0])
    if first[:1] in "#+=-":  # these mean something at the beginning of a line
        first = f"\\{first}"
    elif _NUMBERED.fullmatch(first):
        first = f"{first[:-1]}\\{first[-1]}"
    return " ".join([first, *map(_word, words[1:])])


@lru_cache(maxsize=4096)
def code(text: str) -> str:
    """Something to be taken literally; one line."""
    line = " ".join(text.split("\n"))
    if not line.strip():
        return ""
    longest = max((len(each) for each in re.findall(r"`+", line)), default=0)
    fence = "`" * (longest + 1)
    room = " " if longest or line[:1] == " " or line[-1:] == " " else ""
    return f"{fence}{room}{line}{room}{fence}"


def _word(word: str) -> str:
    head = _HEAD.match(word)
    begin = head[0] if head else ""
    rest = word[len(begin) :]
    tail = _TAIL.search(rest)
    end = tail[0] if tail else ""
    inner = rest[: len(rest) - len(end)]
    if _NUMBER.fullmatch(inner) or not _LINKED.search(inner):
        return _escaped(word)
    return f"{_escaped(begin)}{code(inner)}{_escaped(end)}"


def _escaped(text: str) -> str:
    return _MARKUP.sub(r"\\\1", text)


@lru_cache(maxsize=4096)
def _cell(text: str, style: As) -> str:
    """One cell of a table: a bar would end it, also within code, unless an odd number of backslashes precedes it."""
    made = code(text) if style in (As.MONO, As.FILTER) else prose(text)
    return _BAR.sub(lambda found: found[0] if len(found[1]) % 2 else f"{found[1]}\\|", made)


def _chapter(chapter: Chapter) -> Iterator[str]:
    if chapter.heading:
        yield f"## {prose(chapter.heading)}"
    level = "###" if chapter.heading else "##"
    yield f"{level} In plain words"
    for answer in chapter.answers:
        yield f"**{prose(answer.question)}.** " + " ".join(map(prose, answer.sentences))
    for section in chapter.sections:
        yield f"{level} {prose(section.title)}"
        yield from _section(section, level)


def _section(section: Section, level: str) -> Iterator[str]:
    for block in section.blocks:
        yield _block(block, level)


def _block(block: Block, level: str) -> str:
    match block:
        case Paragraph(text=text):
            return prose(text)
        case Points(items=items):
            return "\n".join(f"- {prose(each)}" for each in items)
        case Facts():
            return _facts(block)
        case Table():
            return _table(block)
        case Verbatim(caption=caption, text=text):
            return f"{prose(caption)}\n\n{_fenced(text)}"
        case Claim():
            return _claim(block, level)
        case Picture(description=description):
            return prose(description)


def _facts(facts: Facts) -> str:
    return "\n".join(
        f"- {prose(name)}: {prose(value) if style is As.TEXT else code(value)}"
        for name, value, style in facts.rows
    )


def _table(block: Table) -> str:
    lines = [
        prose(block.caption),
        "",
        _row(_cell(each.name, As.TEXT) for each in block.columns),
        _row("---:" if each.style is As.NUMBER else "---" for each in block.columns),
        *(
            _row(
                _cell(cell, column.style) for column, cell in zip(block.columns, row, strict=True)
            )
            for row in block.rows
        ),
    ]
    if block.left_out:
        lines += ["", f"{block.left_out:,} more rows do not fit here."]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _claim(claim: Claim, level: str) -> str:
    checked = "checked" if claim.checked else "not checked" if claim.filter else ""
    said = ", ".join(filter(None, (claim.severity.value, checked)))
    parts = [
        f"{level}# {claim.id} {prose(claim.title)} ({said})",
        prose(claim.text),
        _facts(claim.facts),
        _fenced(claim.filter) if claim.filter else "",
    ]
    return "\n\n".join(filter(None, parts))


def _fenced(text: str) -> str:
    """A block of code that nothing within can end."""
    longest = max((len(each) for each in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}text\n{text}\n{fence}"
