"""When two references name the same payment. Pure."""

import unicodedata


def reference_key(reference: str) -> str:
    """Return the form that all spellings of one reference share.

    Compatible characters are one (Unicode's NFKC: wide letters, ligatures, no-break spaces), and so are upper and lower
    case (its full case folding); white space at the ends is nothing, and inside one space.
    """
    folded = unicodedata.normalize("NFKC", reference).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())
