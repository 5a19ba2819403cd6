"""The demo upstream as one provider: only the endpoints, header and fields that its preset says it has."""

from collections.abc import Mapping
from dataclasses import dataclass

from toolkit.core.dialect import Dialect
from toolkit.core.upstream_traits import CredentialHeader, OutputBound
from toolkit.demo.answer import Json
from toolkit.providers.preset import Preset, UsageAt
from toolkit.providers.presets import known

_BOUNDS = frozenset({OutputBound.MAX_TOKENS.value, OutputBound.MAX_COMPLETION_TOKENS.value})


@dataclass(frozen=True, slots=True)
class Disguise:
    """A provider that the demo upstream behaves as.

    Its usage stands where the demo upstream has it, but for streams whose provider tells it unasked.

    Args:
        preset: of the provider; all dialects that it speaks are there.
        refuses: fields that it does not know although its preset says so: quirks to be found.
    """

    preset: Preset
    refuses: frozenset[str] = frozenset()

    def form(self, path: str) -> Preset | None:
        """Return the preset in the dialect of a path, such as /openai/v1/responses; None if it does not have that."""
        dialect, _, rest = path.lstrip("/").partition("/")
        form = known(self.preset.name, Dialect(dialect))
        endpoint = rest.rpartition(":")[2] if dialect == Dialect.GEMINI else rest.removeprefix("v1/")
        is_there = form is not None and (endpoint in form.endpoints or endpoint.rpartition("/")[2] == "models")
        return form if is_there else None

    def shows_credential(self, form: Preset, headers: Mapping[str, str], *, usually: bool) -> bool:
        """Whether a request shows a credential in the header that the provider reads.

        Args:
            form: of the preset that is asked.
            headers: of the request.
            usually: whether it shows one in a header that the dialect's maker reads.
        """
        named = form.traits.credential_header
        return usually if named is CredentialHeader.USUAL else next(iter(named.shown(""))) in headers

    def unknown_field(self, form: Preset, body: Json) -> str | None:
        """Return a field of a chat, or one that it was told to refuse, that the provider does not know."""
        refused = set(self.refuses)
        if not form.traits.add_stream_options:
            refused.add("stream_options")
        if "messages" in body and form.dialect is Dialect.OPENAI and not refused & _BOUNDS:
            refused |= _BOUNDS - {form.traits.output_bound} if form.traits.output_bound in _BOUNDS else set()
        return next((name for name in body if name in refused), None)

    def asked(self, form: Preset, body: Json) -> Json:
        """Return a request as if it had asked for what the provider tells unasked."""
        unasked = form.usage_at in (UsageAt.LAST, UsageAt.EACH) and form.dialect is Dialect.OPENAI
        return body | {"stream_options": {"include_usage": True}} if unasked and body.get("stream") is True else body
