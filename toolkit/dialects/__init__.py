"""The three wire formats that callers and upstreams speak; nothing outside this package knows one.

Begin with `DialectModule` below, the functions that each dialect has, and with `shape`, what they make of a request.
`openai`, `anthropic` and `gemini` are the dialects. `openai_request` and its like read and rewrite requests
(`openai_items` what they are made of), `openai_fields` and its like say what each field changes, `openai_usage` and its
like what an answer used; `meter` and `sse` read streams.

May import `core` alone. Pure: no I/O and no clock, not even through another module.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal
from toolkit.core.service_tier import Served
from toolkit.core.upstream_traits import UpstreamTraits
from toolkit.core.usage import Report
from toolkit.dialects import anthropic, gemini, openai
from toolkit.dialects.hosted_tools import Left
from toolkit.dialects.meter import StreamMeter
from toolkit.dialects.shape import ModelInfo, Shape


class DialectModule(Protocol):
    """What every dialect offers; the modules say what their arguments mean."""

    ENDPOINTS: tuple[str, ...]

    @property
    def Meter(self) -> type[StreamMeter]: ...  # noqa: N802 - a class, named as one

    def inspect(self, endpoint: str, body: dict[str, Any], size: int, path_model: str | None) -> Shape: ...

    def without_hosted_tools(self, endpoint: str, body: dict[str, Any]) -> Left: ...

    def with_hosted_items_as_text(self, endpoint: str, body: dict[str, Any]) -> Left: ...

    def rewrite(
        self,
        endpoint: str,
        body: dict[str, Any],
        *,
        upstream_model: str,
        output_bound: int | None,
        include_usage: bool,
        leave_out_unknown: bool = False,
        service_tier: str | None = None,
        traits: UpstreamTraits = ...,
    ) -> dict[str, Any] | None: ...

    def upstream_path(self, endpoint: str, upstream_model: str, stream: bool, *, alt_sse: bool = False) -> str: ...

    def auth_headers(self, credential: str) -> dict[str, str]: ...

    def usage_of(self, endpoint: str, answer: dict[str, Any]) -> Report | None: ...

    def text_bytes_of(self, endpoint: str, answer: dict[str, Any]) -> int: ...

    def served_by(self, answer: dict[str, Any]) -> Served: ...

    def response_id_of(self, answer: dict[str, Any]) -> str | None: ...

    def error_body(self, refusal: Refusal, request_id: str) -> dict[str, Any]: ...

    def error_event(self, refusal: Refusal, request_id: str, *, sse: bool, endpoint: str, started: bool) -> bytes: ...

    def listing(self, models: Sequence[ModelInfo], asked: Mapping[str, str] = ...) -> dict[str, Any]: ...

    def listed(self, model: ModelInfo) -> dict[str, Any]: ...


MODULES: dict[Dialect, DialectModule] = {
    Dialect.OPENAI: openai,
    Dialect.ANTHROPIC: anthropic,
    Dialect.GEMINI: gemini,
}
