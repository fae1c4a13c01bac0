"""In which language a text is: what a prompt asks the reasoning to be in, and what it came to be.

The identifier is py3langid, a naive Bayes model over byte sequences in the package itself, so
nothing is fetched. It looks at each sentence, and only the languages named here are possible: a
hundred more, and a short sentence in Arabic would pass for one of its dialects. Under a few words,
and in formulas, it guesses; such pieces are left out.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

# English name to ISO 639-1 code.
LANGUAGES = {
    "arabic": "ar", "bengali": "bn", "chinese": "zh", "czech": "cs", "danish": "da",
    "dutch": "nl", "english": "en", "finnish": "fi", "french": "fr", "german": "de",
    "greek": "el", "hebrew": "he", "hindi": "hi", "hungarian": "hu", "indonesian": "id",
    "italian": "it", "japanese": "ja", "korean": "ko", "norwegian": "no", "persian": "fa",
    "polish": "pl", "portuguese": "pt", "romanian": "ro", "russian": "ru", "spanish": "es",
    "swahili": "sw", "swedish": "sv", "thai": "th", "turkish": "tr", "ukrainian": "uk",
    "urdu": "ur", "vietnamese": "vi",
}  # fmt: skip
NAMES = {code: name.capitalize() for name, code in LANGUAGES.items()}
ENOUGH = 8  # letters of a piece that is judged; a letter of Chinese or Japanese says more
ASKED = re.compile(r"reasoning language:[ \t]*([^\s.,;]+)", re.IGNORECASE)
# Kana decide for Japanese and Hangul for Korean, whatever Han characters stand beside them.
SCRIPTS = {
    "ja": re.compile(r"[\u3040-\u30ff]"),
    "ko": re.compile(r"[\uac00-\ud7af]"),
    "th": re.compile(r"[\u0e00-\u0e7f]"),
    "el": re.compile(r"[\u0370-\u03ff]{3}"),
    "he": re.compile(r"[\u0590-\u05ff]"),
}


def asked_language(chat: Sequence[dict[str, Any]]) -> str | None:
    """The code of the language that a chat asks to reason in, or None.

    Asked as in Multilingual-Thinking: "reasoning language: French" in the system message.
    """
    for message in chat:
        if message["role"] in ("system", "developer") and (
            found := ASKED.search(str(message["content"]))
        ):
            name = found[1].lower()
            return name if name in NAMES else LANGUAGES.get(name)
    return None


def reasoning_language(text: str, asked: str | None) -> dict[str, Any]:
    """The language that most letters of a reasoning are in.

    Returns:
        "code" and "name" (None where nothing could be judged), "share" of the judged letters that
        are in it, "asked" (a code or None), "asked_share" of the letters in that one, and
        "as_asked": whether it is the one asked for; None when none was.
    """
    letters: Counter[str] = Counter()
    for piece in re.split(r"[.!?。！？؟।\n]+", text):
        count = sum(character.isalpha() for character in piece)
        if code := _language_of(piece, count):
            letters[code] += count
    total = letters.total()
    code = letters.most_common(1)[0][0] if letters else None
    return {
        "code": code,
        "name": NAMES[code] if code else None,
        "share": round(letters[code] / total, 3) if code else None,
        "asked": asked,
        "asked_share": round(letters[asked] / total, 3) if asked and total else None,
        "as_asked": code == asked if asked else None,
    }


def _language_of(piece: str, letters: int) -> str | None:
    for code, script in SCRIPTS.items():
        if script.search(piece):
            return code
    wide = sum("\u4e00" <= character <= "\u9fff" for character in piece)
    if letters + 3 * wide < ENOUGH:
        return None
    return str(_identifier().classify(piece)[0])


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(sorted(NAMES))
    return identifier
