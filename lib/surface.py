"""The bytes that a token stands for: from its name in a public vocabulary, and as part of words."""
import re


def surface(token, byte_level):
    """A token's name in the vocabulary -> the bytes that it stands for"""
    if byte_level:
        known = all(c in BYTES for c in token)
        return bytes(BYTES[c] for c in token) if known else token.encode()
    if re.fullmatch("<0x[0-9A-F]{2}>", token):
        return bytes.fromhex(token[3:5])
    return token.replace("▁", " ").encode()


def byte_characters():
    """{character of a byte-level vocabulary: its byte}, as GPT-2 chose them: a byte that can be
    printed is itself, and the others follow from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {**{chr(b): b for b in printable}, **{chr(256 + i): b for i, b in enumerate(others)}}


BYTES = byte_characters()


def at_word(surface, mark):
    """Is a token with these bytes one that begins a word (mark: a space), or holds its end (a
    newline)?"""
    return surface.startswith(mark) if mark == b" " else mark in surface
