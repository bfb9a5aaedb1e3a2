"""Undoing what people do to text so that machines misread it.

Three strengths: `clean` removes what nobody sees, `deobfuscate` also undoes disguises but keeps the text readable for a
model, and `fold` reduces text to what term lists are matched on. All three are idempotent and take linear time: hostile
text costs no more than ordinary text of its size.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Final
from unicodedata import combining

_MAX_MARKS: Final = 30
"""Combining marks kept in a row, as in UAX #15's Stream-Safe Text Format: to sort longer runs takes quadratic time."""

# Letters of other scripts (and small capitals) by the Latin letter that they look like. What NFKC maps itself, such as
# fullwidth and mathematical letters, is not repeated here.
_LOOKALIKES: Final = {
    "A": "АΑᎪᴀ",
    "B": "ВΒᏴʙ",
    "C": "СᏟᴄ",
    "D": "Ꭰᴅ",
    "E": "ЕΕᎬᴇ",
    "F": "Ϝꜰ",
    "G": "Ꮐɢ",
    "H": "НΗᎻʜ",
    "I": "ІΙӀɪ",
    "J": "ЈᎫᴊ",
    "K": "КΚᏦᴋ",
    "L": "Ꮮʟ",
    "M": "МΜᎷᴍ",
    "N": "Νɴ",
    "O": "ОΟՕᴏ",
    "P": "РΡᏢᴘ",
    "Q": "Ԛ",
    "R": "ᎡᏒʀ",
    "S": "ЅՏᏚꜱ",
    "T": "ТΤᎢᴛ",
    "U": "Սᴜ",
    "V": "ѴᏙᴠ",
    "W": "ԜᎳᏔᴡ",
    "X": "ХΧ",
    "Y": "УҮΥʏ",
    "Z": "ΖᏃᴢ",
    "a": "аαɑ",
    "b": "ЬᏏ",
    "c": "с",
    "d": "ԁᏧ",
    "e": "еε",
    "g": "ցɡ",
    "h": "һհ",
    "i": "іιᎥı",
    "j": "јϳ",
    "k": "κ",
    "l": "ӏ",
    "n": "ո",
    "o": "оοօσ",
    "p": "рρ",
    "q": "ԛզ",
    "s": "ѕ",
    "t": "τ",
    "u": "սυ",
    "v": "ѵν",
    "w": "ԝω",
    "x": "хχ",
    "y": "уүᎩᎽ",
    "ë": "ё",
    "ï": "ї",
    "Ë": "Ё",
    "Ï": "Ї",
}
_LATIN_OF: Final = {ord(odd): latin for latin, odd_ones in _LOOKALIKES.items() for odd in odd_ones}

# Only for matching: once case is gone, a small letter stands for its capital too (в for B), strokes go the way of
# accents, and letters in boxes, in circles and of flags are letters.
_FOLDED_OF: Final = {
    **{ord(odd.casefold()): latin.lower() for latin, odd_ones in _LOOKALIKES.items() for odd in odd_ones},
    **{ord(odd): latin.lower() for latin, odd_ones in _LOOKALIKES.items() for odd in odd_ones if odd.islower()},
    **{ord(stroked): plain for stroked, plain in zip("øłđħŧɨʉƀ", "oldhtiub", strict=True)},
    **{first + index: chr(97 + index) for first in (0x1F150, 0x1F170, 0x1F1E6) for index in range(26)},
}


def clean(text: str) -> str:
    """Return NFKC text without anything invisible, every run of white space one space, none at the ends."""
    if text.isascii():
        return _SPACES.sub(" ", _ASCII_CONTROL.sub("", text)).strip(" ") if _UNTIDY.search(text) else text
    text = _EXCESSIVE_MARKS.sub("", _INVISIBLE.sub("", text))
    text = _EXCESSIVE_MARKS.sub("", unicodedata.normalize("NFKC", text))
    return " ".join(text.split())


def deobfuscate(text: str) -> str:
    """Return clean text without the lookalikes within Latin words, overlaid marks and leetspeak; case is kept.

    Words wholly in another script, addresses, and words that merely have digits (mp3, covid19, 2nd) stay as they are.
    """
    text = clean(text)
    if not text.isascii():
        text = clean(_ODD_MARKS.sub("", _OVERLAID_MARKS.sub("", _WORD.sub(_latinise, text))))
    if _LEET_INSIDE.search(text):
        text = _LEET_TOKEN.sub(_undo_leetspeak, text)
    return text


def fold(text: str) -> str:
    """Return what terms and texts are compared on: equal for all usual disguises of the same words.

    Letters lose case, accents and foreign shapes; leetspeak, letters that are spelt out (`i.d.i.o.t`) and long repeats
    are undone. Not for display, and not for models: ordinary words of other scripts are disfigured too, the same way
    in terms and in texts.
    """
    text = clean(text)
    if not text.isascii():
        text = _WORD.sub(_latinise, text)
        text = unicodedata.normalize("NFKD", clean(text.casefold())).translate(_FOLDED_OF)
        text = clean(_LATIN_MARKS.sub("", text))
    text = _SPELT_OUT.sub(_join_letters, text.lower())
    if _LEET_ANYWHERE.search(text):
        text = _LEET_WORD.sub(_fold_leetspeak, text)
    return _REPEATED_LETTER.sub(r"\1\1", _REPEATED_VOWEL.sub(r"\1\2", text))


def count_links(text: str) -> int:
    """Count web addresses: with a scheme, with `www.`, or a bare host under a common top-level domain."""
    return sum(1 for _ in _LINK.finditer(text))


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
    characters = spelt[0][::2]
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
_UNTIDY: Final = re.compile(r"[\x00-\x1f\x7f]|  |^ | $")
_SPACES: Final = re.compile(r"[ \t-\r\x1c-\x1f]+")

# The shorter look behind, which is nearly always false, is there for its speed alone.
_EXCESSIVE_MARKS: Final = re.compile(f"(?<={_MARK})(?<={_MARK}{{{_MAX_MARKS}}}){_MARK}+")
_OVERLAID_MARKS: Final = re.compile("[\u0334-\u0338\u20d0-\u20f0]+")
# No language stacks two marks that do not compose on a Latin letter, or puts any on a digit.
_ODD_MARKS: Final = re.compile(f"(?<=[A-Za-z\u00c0-\u024f]){_MARK}{{2,}}|(?<=[0-9@$!]){_MARK}+")
_LATIN_MARKS: Final = re.compile(f"(?<=[a-z0-9@$!]){_MARK}+")
_WORD: Final = re.compile(rf"(?:[^\W_]|{_MARK})+")
_LATIN_LETTER: Final = re.compile("[A-Za-z\u00c0-\u02af\u1d00-\u1d2b\ua730-\ua7ff]")
_ASCII_LETTER: Final = re.compile(r"[a-z]")

_LEET: Final = str.maketrans("013457@$!", "oieastasi")
# A 1 is an l where English has one (1oser, s1ut, he11o, ana1, gir1): before a vowel at a word's start or after one of
# b c f g k p s, after a vowel before another vowel, an l or the word's end, after r at its end. Else an i (k1ll, naz1).
_ONE_AS_L: Final = re.compile(
    r"(?:(?<![a-z0-9])|(?<=[bcfgkps1]))1(?=[aeou043])|(?<=[aeiou043])1(?=[aeou043l1]|[^a-z0-9]|$)|(?<=r)1$",
    re.IGNORECASE,
)
_LEET_ANYWHERE: Final = re.compile(r"[a-z2689][013457@$!]|[013457$][a-z]")
# Only what has a substitute; tried at the beginnings of words alone, which keeps long ones from taking quadratic time.
_LEET_TOKEN: Final = re.compile(r"(?<!\S)[^\s013457@$!]*[013457@$!]\S*")
_LEET_WORD: Final = re.compile(r"(?<![a-z0-9$])(?=[a-z2689]*[013457@$!])[a-z0-9$](?:[a-z0-9$@!]*[a-z0-9$])?")
_LEET_INSIDE: Final = re.compile(r"[A-Za-z][013457@$!]{1,2}[A-Za-z]|(?<![\w$])\$[a-z]{2}|[A-Za-z]\$\$")
_LEET_CORE: Final = re.compile(rf"(?:[^\W_]|\$|{_MARK})(?:(?:[^\W_]|[@$!]|{_MARK})*(?:[^\W_]|\$|{_MARK}))?")
_NOT_LEET: Final = re.compile(r"[^A-Za-z013457@$!]|[0-9]{3}|[a-z]![A-Z]")
_ADDRESS: Final = re.compile(r"://|^www\.|[\w-]@[\w-]+\.[\w-]", re.IGNORECASE)
_ORDINARY_WORDS: Final = frozenset({"a11y", "c3po", "d3js", "h1n1", "h5n1", "l10n", "p5js", "s3fs", "w3c", "w3schools"})

# At least three single letters or their substitutes with the same separator between all of them.
_SINGLE: Final = r"(?:[^\W\d_]|[013457@$])"
_SPELT_OUT: Final = re.compile(rf"(?<![^\W_]){_SINGLE}([ ._\-*/,|+~^'])(?:{_SINGLE}\1)+{_SINGLE}(?![^\W_])")
# Nobody stretches a double vowel, but a double consonant keeps both: idiooot, asssss.
_REPEATED_VOWEL: Final = re.compile(r"([aeiouy])\1{2,}+(?=[^\W\d_])|(?<=[^\W\d_])([aeiouy])\2{2,}+")
_REPEATED_LETTER: Final = re.compile(r"([^\W\d_])\1{2,}")

_LINK: Final = re.compile(
    r"(?:https?|ftp)://[^\s<>]+"
    r"|(?<![\w@.-])(?:www\.[\w-]+\.[^\s<>]+"
    r"|(?:[a-z0-9-]{1,63}\.)+(?:com|net|org|info|biz|io|co|me|tv|app|dev|xyz|top|site|online|shop|club|link|live|ru|cn|de|uk)"
    r"(?![\w@-]|\.[a-z0-9])(?:/[^\s<>]*)?)",
    re.IGNORECASE,
)
