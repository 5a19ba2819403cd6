"""How many pages has a PDF? Read from its uncompressed parts; nothing is inflated."""

import re

from toolkit.dialects.base64_text import LONGEST_HEAD, Base64Text

_PART = LONGEST_HEAD // 2
_MOST_PAGES = 1_000_000
_MOST_WORDS = 4_096
"""Of interest in a part: an object has about a hundred bytes, and three of them at most."""

# ISO 32000-1: 7.7.3 (page tree), annex F (linearized files say their pages at the very beginning).
_LINEARIZED = re.compile(rb"/Linearized\b[^>]{0,200}?/N\s{1,8}+(\d{1,7})")
_WORDS = re.compile(rb"/Type\s{0,8}+/(Pages?)\b|/Count\s{0,8}+(\d{1,7})|(endobj)|(/ObjStm)\b")


def pages_of(blob: Base64Text) -> int:
    """Return the pages of a PDF; 0 if what can be read does not say.

    The count is that of the page tree's root if it can be seen, else that of the pages that are seen, if nothing can be
    hidden: no object is compressed, and the whole file was read. Only its two ends are read of a long one.
    """
    size = blob.size
    head = blob.head(2 * _PART) if size <= 2 * _PART else blob.head(_PART)
    found = _LINEARIZED.search(head, 0, 1024)
    if found is not None:
        return int(found[1])
    rest = b"" if size <= 2 * _PART else blob.piece(size - _PART, _PART + 3)
    seen, counted, hidden = 0, 0, bool(rest)
    for part in (head, rest):
        is_tree, count = False, 0
        for number, word in enumerate(_WORDS.finditer(part)):
            if number == _MOST_WORDS:
                return 0
            if word[1] is not None:
                is_tree = is_tree or word[1] == b"Pages"
                seen += word[1] == b"Page"
            elif word[2] is not None:
                count = max(count, int(word[2]))
            elif word[3] is not None:
                counted = max(counted, count if is_tree else 0)
                is_tree, count = False, 0
            else:
                hidden = True
    if counted == 0 and hidden:
        return 0
    return min(max(counted, seen), _MOST_PAGES)
