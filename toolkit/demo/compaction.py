"""OpenAI's compaction in the demo upstream: of a conversation its user's messages stay, and one sealed summary.

Source: OpenAI API reference, "Compact a response".
"""

import base64

from toolkit.demo import responses
from toolkit.demo.answer import Answer, Ask, Endpoint, Json


def read(body: Json) -> Ask:
    """Read a compaction request: a responses request whose answer is not a stream."""
    return responses.read(body | {"stream": False})


def whole(ask: Ask, answer: Answer) -> Json:
    """Write a compacted response."""
    given = ask.body.get("input")
    items = given if isinstance(given, list) else [{"type": "message", "role": "user", "content": given}]
    kept = [item | {"type": "message"} for item in items if item.get("role") == "user"]
    sealed = base64.b64encode(answer.choices[0].text.encode("utf-8", "replace")).decode()
    body: Json = {
        "id": f"resp_{answer.id}",
        "object": "response.compaction",
        "created_at": answer.created,
        "output": [*kept, {"id": f"cmp_{answer.id}", "type": "compaction", "encrypted_content": sealed}],
    }
    usage = responses.usage(ask, answer)
    return body | {"usage": usage} if usage else body


COMPACTION = Endpoint(read, whole, responses.usage)
