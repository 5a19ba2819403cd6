"""Numbers that say what they count, so that a table shows them by themselves. Pure."""


class Usd(int):
    """Nano-USD. People read it rounded to cents (finer below one cent); JSON and CSV have it exact."""


class Price(Usd):
    """Nano-USD that people read exactly too, such as a price per million tokens."""


class Multiplier(int):
    """A price multiplier in millionths."""


class Share(float):
    """A part of a whole, 1 for all of it; people read it in percent."""
