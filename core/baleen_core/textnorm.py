"""Undoing what people do to text so that machines misread it.

Three strengths: `clean` removes what nobody sees, `deobfuscate` also undoes disguises but keeps the text readable for a
model, and `fold` reduces text to what term lists are matched on. All three are idempotent and take linear time: hostile
text costs no more than ordinary text of its size.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Final
from unicodedata import combining

_MAX_MARKS: Final = 30
"""Combining marks kept in a row, as in UAX #15's Stream-Safe Text Format: to sort longer runs takes quadratic time."""

_MAX_EXPANSION: Final = 4
"""Characters that NFKC may make of one: of a ligature that holds a whole phrase it makes up to 18."""

# Letters of other scripts (and small capitals) by the Latin letter that they look like. What NFKC maps itself, such as
# fullwidth and mathematical letters, is not repeated here.
_LOOKALIKES: Final = {
    "A": "АΑᎪᴀꓮⲀ",
    "B": "ВΒᏴʙꓐⲂ",
    "C": "СᏟᴄꓚⲤ",
    "D": "ᎠᴅꓓⲆ",
    "E": "ЕΕᎬᴇꓰⲈ",
    "F": "Ϝꜰꓝ",
    "G": "Ꮐɢꓖ",
    "H": "НΗᎻʜꓧⲎ",
    "I": "ІΙӀɪꓲⲒᏆ",
    "J": "ЈᎫᴊꓙ",
    "K": "КΚᏦᴋꓗⲔ",
    "L": "Ꮮʟꓡ",
    "M": "МΜᎷᴍꓟⲘ",
    "N": "ΝɴꓠⲚ",
    "O": "ОΟՕᴏꓳⲞᎾ",
    "P": "РΡᏢᴘꓑⲢ",
    "Q": "Ԛ",
    "R": "ᎡᏒʀꓣ",
    "S": "ЅՏᏚꜱꓢ",
    "T": "ТΤᎢᴛꓔⲦ",
    "U": "Սᴜꓴ",
    "V": "ѴᏙᴠꓦ",
    "W": "ԜᎳᏔᴡꓪ",
    "X": "ХΧꓫⲬ",
    "Y": "УҮΥʏꓬⲨ",
    "Z": "ΖᏃᴢꓜ",
    "a": "аαɑⲁ",
    "b": "ЬᏏ",
    "c": "сⲥ",
    "d": "ԁᏧⲇ",
    "e": "еεⲉ",
    "f": "ƒ",
    "g": "ցɡ",
    "h": "һհ",
    "i": "іιᎥıⲓɩ",
    "j": "јϳ",
    "k": "κⲕ",
    "l": "ӏ",
    "m": "ⲙ",
    "n": "ոⲛ",
    "o": "оοօσⲟ",
    "p": "рρⲣ",
    "q": "ԛզ",
    "s": "ѕ",
    "t": "τⲧ",
    "u": "սυ",
    "v": "ѵν",
    "w": "ԝω",
    "x": "хχⲭ",
    "y": "уүᎩᎽⲩ",
    "ë": "ё",
    "ï": "ї",
    "Ë": "Ё",
    "Ï": "Ї",
}
# Cherokee, Coptic and their kin have small letters that are small capitals.
_LATIN_OF: Final = {
    **{ord(odd.lower()): latin.lower() for latin, odd_ones in _LOOKALIKES.items() for odd in odd_ones if odd >= "Ꭰ"},
    **{ord(odd): latin for latin, odd_ones in _LOOKALIKES.items() for odd in odd_ones},
}

# Only for matching: once case is gone, a small letter stands for its capital too (в for B), strokes go the way of
# accents, and letters in boxes, in circles and of flags are letters.
_FOLDED_OF: Final = {
    **{ord(odd.casefold()): latin.lower() for latin, odd_ones in _LOOKALIKES.items() for odd in odd_ones},
    **{ord(odd): latin.lower() for latin, odd_ones in _LOOKALIKES.items() for odd in odd_ones if odd.islower()},
    **{ord(stroked): plain for stroked, plain in zip("øłđħŧɨʉƀ", "oldhtiub", strict=True)},
    **{first + index: chr(97 + index) for first in (0x1F150, 0x1F170, 0x1F1E6) for index in range(26)},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """All that a folded text may say: `texts` whole, `spelt_out` only what is written letter by letter, joined."""

    texts: tuple[str, ...]
    spelt_out: tuple[str, ...]


def clean(text: str) -> str:
    """Return NFKC text without anything invisible, every run of white space one space, none at the ends.

    Ligatures of whole words and phrases stay as they are, so the result is at most four times as long as the text.
    """
    if text.isascii():
        # Printable ASCII has no control characters; asked of the string itself, for every text comes by here.
        if text.isprintable() and "  " not in text and text[:1] != " " and text[-1:] != " ":
            return text
        return _SPACES.sub(" ", _ASCII_CONTROL.sub("", text)).strip(" ")
    text = _EXCESSIVE_MARKS.sub("", _INVISIBLE.sub("", text))
    text = _EXCESSIVE_MARKS.sub("", _NOT_WORDY.sub(_normalise, text))
    return " ".join(text.split())


def deobfuscate(text: str) -> str:
    """Return clean text without the lookalikes within Latin words, overlaid marks, leetspeak and words that are spelt
    out (`i.d.i.o.t`); case is kept.

    Words wholly in another script, addresses, and words that merely have digits (mp3, covid19, 2nd) stay as they are.
    """
    return _undo(clean(text))


def read_text(text: str) -> tuple[str, str, int]:
    """Return `clean(text)`, `deobfuscate(text)` and `count_links(text)`, for less than the three of them cost."""
    plain = clean(text)
    return plain, _undo(plain), _count_links(plain)


def _undo(text: str) -> str:
    text = _undisguise(text)
    if _SPELT_WORD.search(text):
        text = _undisguise(" ".join(_join_within(token) for token in _SPELT_LETTERS.sub(_join, text).split(" ")))
    if _MAYBE_LEET.search(text) and _LEET_INSIDE.search(text):
        text = _LEET_TOKEN.sub(_undo_leetspeak, text)
    return text


def fold(text: str) -> str:
    """Return what terms are compared on: equal for all usual disguises of the same words.

    Letters lose case, accents and foreign shapes; leetspeak, letters that are spelt out (`i.d.i.o.t`) and long repeats
    are undone. Not for display, and not for models: ordinary words of other scripts are disfigured too, the same way
    in terms and in texts.
    """
    return _shorten(_fold_leet(_SPELT_OUT.sub(_join_letters, _fold_letters(text))))


def readings(text: str) -> Readings:
    """Return all folded forms in which a text is searched for folded terms; the first is `fold(text)`.

    There is more than one where nobody can tell how a disguise is meant: letters in a row are a word or are not
    (`plan b c d`), a digit at a word's edge is a letter or is not (`naz1`, `idiot1`), and a stretched letter stands
    for one or for two (`idiooot`, `foool`). At most nine forms, for ordinary text one.
    """
    letters = _fold_letters(text)
    joined = _SPELT_OUT.sub(_join_letters, letters)
    texts = [*_lengths(_fold_leet(joined))]
    if _OUTSIDE.search(joined):
        texts += _lengths(_fold_leet(_OUTSIDE.sub(r" \g<0> ", joined)))
    if joined == letters:
        return Readings(texts=tuple(dict.fromkeys(texts)), spelt_out=())
    spelt = _fold_leet(" ".join(_join_letters(found) for found in _SPELT_OUT.finditer(letters)))
    return Readings(texts=tuple(dict.fromkeys([*texts, _shorten(letters)])), spelt_out=tuple(_lengths(spelt)))


def count_links(text: str) -> int:
    """Count web addresses: with a scheme, with `www.`, a host with a path, or a bare host under a usual domain."""
    return _count_links(clean(text))


def _count_links(text: str) -> int:
    text = text.replace("。", ".")
    # The many ways in which a link may begin are tried at every word; hardly any text has what all of them have.
    return len(_LINK.findall(text)) if _IN_LINKS.search(text) else 0


def _normalise(found: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", found[0])


def _undisguise(text: str) -> str:
    if text.isascii():
        return text
    return clean(_ODD_MARKS.sub("", _OVERLAID_MARKS.sub("", _WORD.sub(_latinise, text))))


def _fold_letters(text: str) -> str:
    text = clean(text)
    if not text.isascii():
        text = _WORD.sub(_latinise, text)
        text = unicodedata.normalize("NFD", clean(text.casefold())).translate(_FOLDED_OF)
        text = clean(_LATIN_MARKS.sub("", text))
    return text.lower()


def _fold_leet(text: str) -> str:
    return _LEET_WORD.sub(_fold_leetspeak, text) if _LEET_ANYWHERE.search(text) else text


def _shorten(text: str, vowels: int = 1, consonants: int = 2) -> str:
    """Leave so many of three and more equal letters, of those alone in their word always two."""
    if not _REPEATED_LETTER.search(text):
        return text
    text = _STRETCHED_VOWEL.sub(r"\1\2" * vowels, text)
    return _REPEATED_LETTER.sub(r"\1\1", _STRETCHED_CONSONANT.sub(r"\1\2" * consonants, text))


def _lengths(text: str) -> Iterable[str]:
    """Return the text with its stretched letters at each length that they may have had."""
    if not _REPEATED_LETTER.search(text):
        return (text,)
    return dict.fromkeys(_shorten(text, vowels, consonants) for vowels, consonants in product((1, 2), (2, 1)))


def _join(spelt: re.Match[str]) -> str:
    return spelt[0].replace(" ", "")


def _join_within(token: str) -> str:
    return token if _ADDRESS.search(token) else _SPELT_TOKEN.sub(_join_token, token)


def _join_token(spelt: re.Match[str]) -> str:
    characters = spelt[0].replace(spelt[1], "")
    return characters if sum(map(str.isalpha, characters)) >= 3 else spelt[0]


def _latinise(word: re.Match[str]) -> str:
    found = word[0]
    return found.translate(_LATIN_OF) if not found.isascii() and _LATIN_LETTER.search(found) else found


def _undo_leetspeak(token: re.Match[str]) -> str:
    return token[0] if _ADDRESS.search(token[0]) else _LEET_CORE.sub(_undo_leet_word, token[0])


def _undo_leet_word(core: re.Match[str]) -> str:
    word = core[0]
    if not _LEET_INSIDE.search(word) or _NOT_LEET.search(word) or word.lower() in _ORDINARY_WORDS:
        return word
    letters = _ONE_AS_L.sub("l", word.lower()).translate(_LEET)
    # A substitute takes the case of its word; a letter keeps its own.
    in_capitals = not any(character.islower() for character in word)
    return "".join(
        old if old.isalpha() else new.upper() if in_capitals else new for old, new in zip(word, letters, strict=True)
    )


def _fold_leetspeak(word: re.Match[str]) -> str:
    return _ONE_AS_L.sub("l", word[0]).translate(_LEET) if _ASCII_LETTER.search(word[0]) else word[0]


def _join_letters(spelt: re.Match[str]) -> str:
    characters = spelt[0].replace(spelt[1], "")
    return characters if sum(map(str.isalpha, characters)) >= 2 else spelt[0]


def _ranges(characters: Iterable[int]) -> str:
    """Write code points, in order, as the inside of a regular expression's character class."""
    spans: list[list[int]] = []
    for character in characters:
        if spans and spans[-1][1] == character - 1:
            spans[-1][1] = character
        else:
            spans.append([character, character])
    return "".join(f"{re.escape(chr(first))}-{re.escape(chr(last))}" for first, last in spans)


# Above these code points there are no marks, and no invisible characters but those of plane 14.
_LAST_MARK: Final = 0x1E94A
_LAST_INVISIBLE: Final = 0x1D17A


def _marks(first: int, last: int) -> str:
    characters = ((code, chr(code)) for code in range(first, last + 1))
    return _ranges(code for code, mark in characters if unicodedata.category(mark) in ("Mn", "Me") or combining(mark))


# Halfwidth voicing marks are no marks themselves but become such in NFKC. The look ahead spares all ordinary characters
# the search through the many ranges of the higher planes, for which re has no table.
_MARK: Final = (
    f"(?:[{_marks(0x300, 0xFFFF)}\uff9e\uff9f]|(?=[\U00010000-{chr(_LAST_MARK)}])[{_marks(0x10000, _LAST_MARK)}])"
)

# Fillers, blanks and joiners that Unicode calls letters, marks or symbols, yet nobody sees.
_BLANKS: Final = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
_INVISIBLE: Final = re.compile(
    "["
    + _ranges(
        character
        for character in range(_LAST_INVISIBLE + 1)
        if unicodedata.category(chr(character)) in ("Cc", "Cf", "Cs") and not chr(character).isspace()
    )
    + _BLANKS
    + "\U000e0000-\U000e0fff]+"
)
_ASCII_CONTROL: Final = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]+")
_SPACES: Final = re.compile(r"[ \t-\r\x1c-\x1f]+")

# The characters that NFKC would blow up: ligatures of Arabic phrases, and units.
_WORDY: Final = _ranges(
    code
    for block in (range(0x3300, 0x3400), range(0xFDF0, 0xFE00))
    for code in block
    if len(unicodedata.normalize("NFKC", chr(code))) > _MAX_EXPANSION
)
_NOT_WORDY: Final = re.compile(f"[^{_WORDY}]+")

# The shorter look behind, which is nearly always false, is there for its speed alone.
_EXCESSIVE_MARKS: Final = re.compile(f"(?<={_MARK})(?<={_MARK}{{{_MAX_MARKS}}}){_MARK}+")
_OVERLAID_MARKS: Final = re.compile("[\u0334-\u0338\u20d0-\u20f0]+")
# No language stacks two marks that do not compose on a Latin letter, or puts any on a digit.
_ODD_MARKS: Final = re.compile(f"(?<=[A-Za-z\u00c0-\u024f]){_MARK}{{2,}}|(?<=[0-9@$!]){_MARK}+")
_LATIN_MARKS: Final = re.compile(f"(?<=[a-z0-9@$!|€]){_MARK}+")
_WORD: Final = re.compile(rf"(?:[^\W_]|{_MARK})+")
_LATIN_LETTER: Final = re.compile("[A-Za-z\u00c0-\u02af\u1d00-\u1d2b\ua730-\ua7ff]")
_ASCII_LETTER: Final = re.compile(r"[a-z]")

_LEET: Final = str.maketrans("013457@$!|€", "oieastasile")
# A 1 is an l where English has one (1oser, s1ut, he11o, ana1, gir1): before a vowel at a word's start or after one of
# b c f g k p s, after a vowel before another vowel, an l or the word's end, after r at its end. Else an i (k1ll, naz1).
_ONE_AS_L: Final = re.compile(
    r"(?:(?<![a-z0-9])|(?<=[bcfgkps1]))1(?=[aeou043])|(?<=[aeiou043])1(?=[aeou043l1]|[^a-z0-9]|$)|(?<=r)1$",
    re.IGNORECASE,
)
_LEET_ANYWHERE: Final = re.compile(r"[a-z2689][013457@$!|€]|[013457$|€][a-z]")
# Only what has a substitute; tried at the beginnings of words alone, which keeps long ones from taking quadratic time.
_LEET_TOKEN: Final = re.compile(r"(?<!\S)[^\s013457@$!]*[013457@$!]\S*")
_LEET_WORD: Final = re.compile(r"(?<![a-z0-9$|€])(?=[a-z2689]*[013457@$!|€])[a-z0-9$|€](?:[a-z0-9$@!|€]*[a-z0-9$|€])?")
_LEET_INSIDE: Final = re.compile(r"[A-Za-z][013457@$!]{1,2}[A-Za-z]|(?<![\w$])\$[a-z]{2}|[A-Za-z]\$\$")
# What every one of those has somewhere: re looks for the first of a class of characters faster than for a branch.
_MAYBE_LEET: Final = re.compile(r"[013457@$!][A-Za-z$]")
_LEET_CORE: Final = re.compile(rf"(?:[^\W_]|\$|{_MARK})(?:(?:[^\W_]|[@$!]|{_MARK})*(?:[^\W_]|\$|{_MARK}))?")
_NOT_LEET: Final = re.compile(r"[^A-Za-z013457@$!]|[0-9]{3}|[a-z]![A-Z]")
_ADDRESS: Final = re.compile(r"://|^www\.|[\w-]@[\w-]+\.[\w-]", re.IGNORECASE)
_ORDINARY_WORDS: Final = frozenset({"a11y", "c3po", "d3js", "h1n1", "h5n1", "l10n", "p5js", "s3fs", "w3c", "w3schools"})

# What was perhaps put on a word (idiot1), or stands between two (fool|idiot).
_OUTSIDE: Final = re.compile(r"(?<![\w$])[0-9$]++(?=[^\W\d_])|(?<=[^\W\d_])[0-9$]++(?![^\W_])|[|€]")

# At least three single letters or their substitutes with the same separator between all of them.
_SINGLE: Final = r"(?:[^\W\d_]|[013457@$])"
_SPELT_OUT: Final = re.compile(rf"(?<![^\W_]){_SINGLE}( ?[._\-*/,|+~^'] ?| )(?:{_SINGLE}\1)+{_SINGLE}(?![^\W_])")
# For models with more care: letters that compose with no other, four with spaces, and no end of a word (don't, I'm).
_LETTER: Final = r"(?=[A-Za-z\u00c0-\u052f])[^\W\d_]"
_BEFORE: Final = r"(?<![\w'’@/])"
_AFTER: Final = r"(?![\w'’@/])"
_SPELT_LETTERS: Final = re.compile(rf"{_BEFORE}(?:{_LETTER} ){{3,}}{_LETTER}{_AFTER}")
_SPELT_TOKEN: Final = re.compile(rf"{_BEFORE}{_LETTER}([._\-*/,|+~^])(?:(?:{_LETTER}|[013457])\1)+{_LETTER}{_AFTER}")
# Begins at the separator, of which there are fewer, and then looks back for the letter before it.
_SPELT_WORD: Final = re.compile(
    rf"([ ._\-*/,|+~^])(?:{_LETTER}|[013457])\1(?<={_BEFORE}{_LETTER}[ ._\-*/,|+~^].[ ._\-*/,|+~^])"
)

# Nobody can tell how often a stretched letter was meant: idiooot, foool, asssss.
_STRETCHED_VOWEL: Final = re.compile(r"([aeiouy])\1{2,}+(?=[^\W\d_])|(?<=[^\W\d_])([aeiouy])\2{2,}+")
_STRETCHED_CONSONANT: Final = re.compile(r"([^\W\d_aeiouy])\1{2,}+(?=[^\W\d_])|(?<=[^\W\d_])([^\W\d_aeiouy])\2{2,}+")
_REPEATED_LETTER: Final = re.compile(r"([^\W\d_])\1{2,}")

# Files in prose (docs/main.py/test.py) are no hosts.
_FILE_TYPES: Final = "py|js|ts|md|txt|json|yaml|yml|toml|csv|pdf|html|xml|png|jpg|gif|mp3|mp4|zip|exe|docx?|sh|go|rs"
_LINK: Final = re.compile(
    r"(?:https?|ftp)://[^\s<>]+"
    r"|(?<![a-z0-9_@.-])(?:www\.[\w-]+\.[^\s<>]+"
    r"|(?:[a-z0-9-]{1,63}\.)+(?:"
    r"(?:com|net|org|info|biz|io|co|me|tv|app|dev|xyz|top|site|online|shop|club|link|live|ru|cn|de|uk|gg|ly|ai|cc|gl)"
    r"(?![a-z0-9_@-]|\.[a-z0-9])(?:/[^\s<>]*)?"
    rf"|(?!(?:{_FILE_TYPES})/)[a-z]{{2,63}}/[^\s<>]+))",
    re.IGNORECASE,
)
_IN_LINKS: Final = re.compile(r"\.[\w-]|://")
"""What every link has somewhere."""
