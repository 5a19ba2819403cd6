"""What is known of the fields of a Gemini request, and what each changes.

Names and meanings: the Gemini API's REST reference ("Generating content", "Embeddings", "Counting tokens") and Vertex
AI's ("GenerateContent"), whose bodies are protocol buffers in JSON.
"""

from collections.abc import Mapping

from toolkit.dialects.fields import AUDIO, Effect, Field, Fields, covered, dropped, plain, refused

STORED = "what the provider keeps is shared by everybody behind this gateway; send the content itself"
HOSTED_TOOL = "tools that the provider runs have no price here; declare a function and run it yourself"

_OTHER_MODEL = "another model than the one in the path may answer, at another price"
_TIER = "this service tier has no price here; leave it out"
_STANDARD = ("standard", "unspecified", "service_tier_standard", "service_tier_unspecified")
_HOLD_INPUT = "its bytes bound the input that is held"


def _fields(*rows: Mapping[str, Field], others: Field | None = None) -> Fields:
    return Fields(*rows, others=others, protobuf=True)


_TIERS = refused(Effect.PRICE, _TIER, "serviceTier", allowed=_STANDARD)
_CACHED = refused(Effect.STATE, STORED, "cachedContent")

TOOL = _fields(
    covered(Effect.CONTEXT, "bytes and an allowance per declaration", "functionDeclarations"),
    covered(Effect.CONTEXT, "an allowance per predefined function; the caller runs them", "computerUse"),
    refused(
        Effect.PRICE,
        HOSTED_TOOL,
        *("googleSearch", "googleSearchRetrieval", "enterpriseWebSearch", "googleMaps", "urlContext", "exaAiSearch"),
        "parallelAiSearch",
        bare=True,
    ),
    refused(Effect.STATE, HOSTED_TOOL, "codeExecution", "fileSearch", "mcpServers", "retrieval", bare=True),
    others=Field(Effect.PRICE, HOSTED_TOOL, bare=True),
)
"""A tool is told by the name of its one field; an unknown one may be one that the provider runs and charges for."""

CONFIG = _fields(
    plain("temperature", "topP", "topK", "seed", "stopSequences", "frequencyPenalty", "presencePenalty"),
    plain("responseLogprobs", "logprobs", "responseMimeType", "responseSchema", "responseJsonSchema"),
    plain("enableEnhancedCivicAnswers", "audioTimestamp"),
    covered(Effect.PRICE, "each candidate is held and charged", "candidateCount"),
    covered(Effect.CONTEXT, "bounds the output that is held", "maxOutputTokens"),
    covered(Effect.CONTEXT, "pictures are held by it; other media hold the context window", "mediaResolution"),
    covered(Effect.PRICE, "only 'TEXT' is answered", "responseModalities"),
    {
        "responseFormat": Field(Effect.PRICE, covered="only text is answered"),
        "thinkingConfig": Field(
            Effect.NONE,
            inside=_fields(
                plain("includeThoughts", "thinkingLevel"),
                covered(Effect.CONTEXT, "thoughts count toward `maxOutputTokens`", "thinkingBudget"),
            ),
        ),
    },
    refused(Effect.PRICE, AUDIO, "speechConfig", "audioTranscriptionConfig", "translationConfig"),
    refused(Effect.PRICE, AUDIO, "enableAffectiveDialog", allowed=(False,)),
    refused(Effect.PRICE, "images that a model makes have no price here", "imageConfig"),
    refused(Effect.PRICE, _OTHER_MODEL, "routingConfig", "modelConfig", "modelSelectionConfig"),
    refused(Effect.STATE, "it continues an answer kept at the provider; send the content again", "continuationToken"),
    refused(Effect.STATE, "answers are not written to storage from here", "generationOutputConfig"),
    refused(Effect.STATE, STORED, "modelArmorConfig"),
    _CACHED,
    _TIERS,
)
"""`generationConfig`."""

_SHARED = {
    **covered(Effect.PRICE, "must be the path's", "model"),
    **covered(Effect.CONTEXT, _HOLD_INPUT, "contents", "content", "systemInstruction"),
    **plain("labels", "safetySettings"),
    "tools": Field(Effect.CONTEXT, covered="by the name of its field", inside=TOOL),
    "toolConfig": Field(
        Effect.NONE,
        inside=_fields(
            plain("functionCallingConfig", "retrievalConfig"),
            covered(Effect.PRICE, "no tool of the provider is let through", "includeServerSideToolInvocations"),
        ),
    ),
    "generationConfig": Field(Effect.CONTEXT, covered="field by field", inside=CONFIG),
    **_CACHED,
    **_TIERS,
    **refused(
        Effect.STATE,
        "what the provider would keep is shared by everybody behind this gateway",
        "store",
        allowed=(False,),
    ),
    **refused(Effect.STATE, STORED, "modelArmorConfig"),
    **plain("taskType", "title", "outputDimensionality", "autoTruncate", "mimeType", "documentOcr"),
    **plain("audioTrackExtraction", "embedContentConfig"),
}

_REQUEST = _fields(_SHARED)
BODY = _fields(
    _SHARED,
    {
        "generateContentRequest": Field(Effect.CONTEXT, covered="judged as a request", inside=_REQUEST),
        "requests": Field(Effect.CONTEXT, covered="each is judged as a request", inside=_REQUEST),
    },
)
"""The body of every endpoint."""

PART = _fields(
    refused(Effect.STATE, f"{STORED} in 'inlineData'", "fileData", "fileUri"),
    refused(Effect.PRICE, HOSTED_TOOL, "executableCode", "codeExecutionResult", "toolCall", "toolResponse"),
)
"""A part of a content."""

HEADERS = {
    **plain("x-goog-api-client"),
    **dropped(
        Effect.STATE,
        "the account is chosen by your API key",
        *("x-goog-user-project", "x-goog-request-params", "x-goog-iam-authority-selector"),
        "x-goog-iam-authorization-token",
    ),
    **dropped(Effect.PRICE, "it may leave the usage out of the answer", "x-goog-fieldmask"),
}
"""Headers of Google's own; those that are not here are never sent on, for many of them choose an account."""
