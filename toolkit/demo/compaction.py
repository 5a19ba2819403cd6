"""OpenAI's compaction in the demo upstream: of a conversation its user's messages stay, and one sealed summary.

Source: OpenAI API reference, "Compact a response".
"""

from toolkit.demo import responses
from toolkit.demo.answer import Answer, Ask, Endpoint, Json


def read(body: Json) -> Ask:
    """Read a compaction request: a responses request whose answer is not a stream."""
    return responses.read(body | {"stream": False})


def whole(ask: Ask, answer: Answer) -> Json:
    """Write a compacted response."""
    given = ask.body.get("input")
    items = given if isinstance(given, list) else [{"role": "user", "content": given}]
    kept = [_kept(item, f"msg_{answer.id}{place}") for place, item in enumerate(items) if item.get("role") == "user"]
    body: Json = {
        "id": f"resp_{answer.id}",
        "object": "response.compaction",
        "created_at": answer.created,
        "output": [*kept, responses.compaction(answer)],
    }
    usage = responses.usage(ask, answer)
    return body | {"usage": usage} if usage else body


def _kept(message: Json, name: str) -> Json:
    content = message["content"]
    parts = [{"type": "input_text", "text": content}] if isinstance(content, str) else content
    return {"id": name, "type": "message", "status": "completed", "role": "user", "content": parts}


COMPACTION = Endpoint(read, whole, responses.usage)
