"""What a provider's own tools did in an earlier answer goes on as text; what the caller's tools did, as it came."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal
from toolkit.dialects import anthropic, gemini, openai
from toolkit.dialects.body import dump_object
from toolkit.dialects.gemini_request import COUNT_TOKENS, GENERATE
from toolkit.dialects.openai_fields import CHAT, RESPONSES
from toolkit.gateway.reader_process import read_request

Json = dict[str, Any]

USER: Json = {"role": "user", "content": "what is new?"}
SEARCHED: Json = {
    "type": "web_search_call",
    "id": "ws_1",
    "status": "completed",
    "action": {"type": "search", "query": "the news", "sources": [{"type": "url", "url": "https://example.com"}]},
}
SAID: Json = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "nothing"}]}


def responses(*items: Json, **fields: Any) -> tuple[list[Json], tuple[str, ...]]:
    """Return the input items of a Responses request as they go on, and what was left out."""
    changed, told = openai.with_hosted_items_as_text(RESPONSES, {"model": "m", "input": list(items), **fields})
    return changed["input"], told


def test_a_search_of_an_earlier_turn_is_text_in_its_place() -> None:
    """With what was looked for and found, without ids of what the provider keeps."""
    found, told = responses(USER, SEARCHED, SAID, USER)
    text = (
        '[web_search_call] {"action":{"type":"search","query":"the news",'
        '"sources":[{"type":"url","url":"https://example.com"}]}}'
    )
    assert found == [USER, {"role": "assistant", "content": text}, SAID, USER]
    assert told == ("input[*].web_search_call",)


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (
            {"type": "file_search_call", "id": "fs", "queries": ["q"], "results": [{"file_id": "f", "text": "t"}]},
            '[file_search_call] {"queries":["q"],"results":[{"text":"t"}]}',
        ),
        (
            {
                "type": "code_interpreter_call",
                "code": "1",
                "container_id": "c",
                "outputs": [{"logs": "2"}, {"type": "image", "url": "data:image/png;base64,AAAA"}],
            },
            '[code_interpreter_call] {"code":"1","outputs":[{"logs":"2"},{"type":"image","url":"data:"}]}',
        ),
        ({"type": "image_generation_call", "result": "iVBOR" * 9_999}, "[image_generation_call] {}"),
        ({"type": "mcp_call", "name": "n", "arguments": "{}", "output": "o"}, None),
        ({"type": "mcp_list_tools", "server_label": "s", "tools": [{"name": "n", "input_schema": {}}]}, None),
        ({"type": "program", "id": "p", "call_id": "c", "code": "x()", "fingerprint": "f"}, '[program] {"code":"x()"}'),
        ({"type": "tool_search_call", "execution": "server", "arguments": {"q": 1}}, None),
    ],
)
def test_each_item_of_a_hosted_tool_is_text(item: Json, text: str | None) -> None:
    """None is refused any more, and none is a picture's bytes."""
    (found,), told = responses(item)
    assert found["role"] == "assistant"
    assert text is None or found["content"] == text
    assert told == (f"input[*].{item['type']}",)
    openai.inspect(RESPONSES, {"model": "m", "input": [found]}, 100, None)


def test_a_shell_in_a_container_is_text_with_what_it_answered() -> None:
    """An output without its call would be refused; one of the caller's own shell goes on."""
    there = {"type": "shell_call", "call_id": "1", "action": {"commands": ["ls"]}, "environment": {"type": "container"}}
    here = {"type": "shell_call", "call_id": "2", "action": {"commands": ["ls"]}, "environment": {"type": "local"}}
    outputs = [{"type": "shell_call_output", "call_id": n, "output": [{"stdout": "a"}]} for n in "12"]
    found, told = responses(there, here, *outputs)
    assert [item.get("type") for item in found] == [None, "shell_call", None, "shell_call_output"]
    assert told == ("input[*].shell_call", "input[*].shell_call_output")


def test_many_shells_are_looked_at_once_each() -> None:
    """Not each beside each: what is compared is counted, by names that count how often they are."""
    compared = 0

    class Name(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    calls = [
        {"type": "shell_call", "call_id": Name(number), "environment": {"type": "container_auto"}}
        for number in range(500)
    ]
    found, told = responses(*calls)
    assert (len(found), told) == (500, ("input[*].shell_call",))
    assert compared <= 2_000


def test_a_call_by_a_program_that_is_text_is_a_call_by_the_model() -> None:
    """It names a program that is not there any more."""
    program = {"type": "program", "call_id": "p", "code": "f()"}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    found, _ = responses(program, {**call, "caller": {"type": "program", "caller_id": "p"}})
    assert found[1] == call


def test_tools_that_an_item_adds_are_treated_as_those_of_the_request() -> None:
    """Hosted ones are left out, and an item that adds none any more with them."""
    function = {"type": "function", "name": "f"}
    added = {"type": "additional_tools", "role": "developer"}
    found, told = responses(
        {**added, "tools": [function, {"type": "web_search"}]}, {**added, "tools": [{"type": "mcp"}]}
    )
    assert found == [{**added, "tools": [function]}]
    assert told == ("input[*].tools[*].web_search", "input[*].tools[*].mcp")


def test_what_has_no_such_item_is_the_same_object() -> None:
    """Whatever else is wrong with it."""
    for body in ({}, {"input": "x"}, {"input": [USER, 5, None, {"type": []}]}, {"messages": [5, {"content": [None]}]}):
        assert openai.with_hosted_items_as_text(RESPONSES, body)[0] is body
        assert openai.with_hosted_items_as_text(CHAT, body)[0] is body
        assert anthropic.with_hosted_items_as_text("messages", body)[0] is body
        assert gemini.with_hosted_items_as_text(GENERATE, body)[0] is body


# -- Anthropic --------------------------------------------------------------------------------------------------

THOUGHT: Json = {"type": "thinking", "thinking": "t", "signature": "s"}
USED: Json = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}}
RESULT: Json = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": [
        {"type": "web_search_result", "title": "T", "url": "https://example.com", "encrypted_content": "E" * 99}
    ],
    "cache_control": {"type": "ephemeral"},
}
CITED: Json = {
    "type": "text",
    "text": "so",
    "citations": [{"type": "web_search_result_location", "encrypted_index": "E"}],
}


def blocks(*content: Json) -> tuple[list[Json], tuple[str, ...]]:
    """Return the blocks of an assistant's message as they go on, and what was left out."""
    body = {"messages": [{"role": "assistant", "content": list(content)}]}
    changed, told = anthropic.with_hosted_items_as_text("messages", body)
    return changed["messages"][0]["content"], told


def test_a_search_of_anthropics_is_text_between_the_thoughts() -> None:
    """What refers to it goes, and a mark for the cache stays; signed thoughts are neither changed nor made to meet."""
    own = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    found, told = blocks(THOUGHT, USED, RESULT, THOUGHT, CITED, {**own, "caller": {"type": "code_execution_20260120"}})
    assert found == [
        THOUGHT,
        {"type": "text", "text": '[server_tool_use] {"name":"web_search","input":{"query":"q"}}'},
        {
            "type": "text",
            "text": '[web_search_tool_result] {"content":'
            '[{"type":"web_search_result","title":"T","url":"https://example.com"}]}',
            "cache_control": {"type": "ephemeral"},
        },
        THOUGHT,
        {"type": "text", "text": "so"},
        own,
    ]
    assert told == ("messages[*].content[*].server_tool_use", "messages[*].content[*].web_search_tool_result")


@pytest.mark.parametrize(
    "kind",
    [
        *("web_fetch_tool_result", "code_execution_tool_result", "bash_code_execution_tool_result"),
        *("text_editor_code_execution_tool_result", "tool_search_tool_result", "advisor_tool_result"),
        *("mcp_tool_use", "mcp_tool_result", "mcp_tool_listing"),
    ],
)
def test_each_block_of_a_hosted_tool_is_text(kind: str) -> None:
    """A document's bytes are none of it."""
    source = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0" * 999}
    (found,), told = blocks({"type": kind, "content": {"title": "T", "source": source}})
    assert found["type"] == "text"
    assert len(found["text"]) < 200
    assert told == (f"messages[*].content[*].{kind}",)


def test_a_hosted_tool_that_is_added_in_the_middle_is_left_out() -> None:
    """A message that said nothing else goes with it; the caller's own tools come and go as they did."""
    own = {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "f"}}
    added = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": {"type": "advisor_20260301"}}}
    gone = {"type": "tool_removal", "tool": {"type": "mcp_toolset_reference", "server_name": "s"}}
    messages = [{"role": "system", "content": [added, gone]}, {"role": "system", "content": [own, added]}]
    changed, told = anthropic.with_hosted_items_as_text("messages", {"messages": [USER, *messages]})
    assert changed["messages"] == [USER, {"role": "system", "content": [own]}]
    assert told == ("messages[*].content[*].tool_addition", "messages[*].content[*].tool_removal")


def test_a_result_of_the_callers_own_tool_is_no_text() -> None:
    """Nor is anything of a message that has nothing else; its citations stay."""
    own = {"type": "tool_result", "tool_use_id": "t", "content": "c"}
    body = {"messages": [{"role": "user", "content": [own, CITED]}]}
    assert anthropic.with_hosted_items_as_text("messages", body)[0] is body


# -- Gemini -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelled", ["executableCode", "executable_code"])
def test_code_that_gemini_ran_is_text(spelled: str) -> None:
    """In either spelling; one content, and one part, may stand without its array."""
    ran = {spelled: {"language": "PYTHON", "code": "print(1)"}, "thoughtSignature": "s"}
    result = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}
    body: Json = {"contents": [{"role": "model", "parts": [{"text": "see"}, ran, result]}]}
    changed, told = gemini.with_hosted_items_as_text(GENERATE, body)
    assert changed["contents"][0]["parts"] == [
        {"text": "see"},
        {"text": '[executableCode] {"language":"PYTHON","code":"print(1)"}'},
        {"text": '[codeExecutionResult] {"outcome":"OUTCOME_OK","output":"1"}'},
    ]
    assert told == ("contents[*].parts[*].executableCode", "contents[*].parts[*].codeExecutionResult")
    alone, _ = gemini.with_hosted_items_as_text(GENERATE, {"contents": {"parts": ran}})
    assert alone["contents"][0]["parts"][0]["text"].startswith("[executableCode]")
    nested, _ = gemini.with_hosted_items_as_text(COUNT_TOKENS, {"generateContentRequest": body})
    assert nested["generateContentRequest"] == changed


# -- read as a whole ----------------------------------------------------------------------------------------------

SEEN = [
    (Dialect.OPENAI, RESPONSES, None, {"model": "m", "input": [USER, SEARCHED, SAID]}),
    (
        Dialect.ANTHROPIC,
        "messages",
        None,
        {"model": "m", "max_tokens": 9, "messages": [{"role": "assistant", "content": [USED, RESULT]}]},
    ),
    (
        Dialect.GEMINI,
        GENERATE,
        "m",
        {"contents": [{"parts": [{"toolCall": {"id": "1", "toolType": "GOOGLE_SEARCH_WEB", "args": {"q": 1}}}]}]},
    ),
]


@pytest.mark.parametrize(("dialect", "endpoint", "model", "body"), SEEN)
def test_a_request_with_such_items_is_read_as_it_goes_on(
    dialect: Dialect, endpoint: str, model: str | None, body: Json
) -> None:
    """It is held by what is sent, and named as left out; in a body that is wrong besides, that is what is said."""
    reading = read_request(dialect, endpoint, model, [], dump_object(body))
    assert reading.shape.left_out
    assert reading.shape.text_bytes == len(dump_object(reading.body))
    wrong = dump_object({**body, "store": True, "speed": "fast", "cachedContent": "c"})
    with pytest.raises(Refusal, match=r"store|speed|cachedContent"):
        read_request(dialect, endpoint, model, [], wrong)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["type", "data", "tools", "content", "caller", "call_id", "parts", "toolCall", "text", "url"]),
        inner | st.sampled_from(["web_search_call", "server_tool_use", "base64", "shell_call", "data:x", "mcp_call"]),
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(JSON, max_size=4))
def test_whatever_stands_there_is_read_without_a_fault(items: list[Any]) -> None:
    """And a second look finds nothing more to say as text."""
    for dialect, endpoint, body in (
        (openai, RESPONSES, {"input": items}),
        (anthropic, "messages", {"messages": [{"content": items}, *items]}),
        (gemini, GENERATE, {"contents": [{"parts": items}, *items]}),
    ):
        changed, told = dialect.with_hosted_items_as_text(endpoint, body)
        dump_object(changed)
        assert dialect.with_hosted_items_as_text(endpoint, changed)[1] == ()
        assert told or changed is body
