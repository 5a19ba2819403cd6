"""The task that a coding agent is given, turn by turn, with the tools of each one in its dialect."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.demo.test_upstream import post
from toolkit.demo.agent import next_step
from toolkit.demo.answer import Ask, Tool, Turn

Json = dict[str, Any]

TASK = "Replace wrld with world in notes.txt, then run cat notes.txt"
FILE = "hello wrld\nsecond line\n"


def schema(*names: str, required: tuple[str, ...] = (), **properties: Json) -> Json:
    listed = {name: {"type": "string"} for name in names} | properties
    return {"type": "object", "properties": listed, "required": list(required or names)}


READ = Tool("Read", schema("file_path"))
EDIT = Tool("Edit", schema("file_path", "old_string", "new_string"))
BASH = Tool("Bash", schema("command"))
PATCH = Tool("apply_patch", None, freeform=True)


def ask(*turns: Turn, tools: tuple[Tool, ...] = (READ, EDIT, BASH), **more: Any) -> Ask:
    return Ask("m", {}, (), turns, tools=tools, **more)


def said(text: str) -> Turn:
    return Turn(text)


def got(text: str) -> Turn:
    return Turn(text, result=True)


def called(*turns: Turn, tools: tuple[Tool, ...]) -> tuple[str, Any]:
    """Return the tool that is called next, and its arguments."""
    step = next_step(ask(*turns, tools=tools))
    assert step is not None
    assert step.tool is not None
    return step.tool.name, step.arguments if step.tool.freeform else json.loads(step.arguments)


def test_the_task_reads_edits_runs_and_says_so() -> None:
    """Three calls, each after the other's result, and a text with what the command printed."""
    turns = [said(TASK)]
    assert called(*turns, tools=(READ, EDIT, BASH)) == ("Read", {"file_path": "notes.txt"})
    turns.append(got(FILE))
    edited = {"file_path": "notes.txt", "old_string": "wrld", "new_string": "world"}
    assert called(*turns, tools=(READ, EDIT, BASH)) == ("Edit", edited)
    turns.append(got("done"))
    assert called(*turns, tools=(READ, EDIT, BASH)) == ("Bash", {"command": "cat notes.txt"})
    turns.append(got("hello world"))
    step = next_step(ask(*turns))
    assert step is not None
    assert step.tool is None
    assert step.words.endswith("hello world")


def test_each_answer_thinks_longer_than_the_one_before() -> None:
    """So the usage of no turn is that of another."""
    turns = [said(TASK), got(FILE), got("done"), got("hello world")]
    steps = [next_step(ask(*turns[:number])) for number in range(1, 5)]
    assert [step and step.thought for step in steps] == [0, 8, 16, 24]


@pytest.mark.parametrize(
    "words",
    [
        "Please replace `wrld` by `world` in `notes.txt` and run `cat notes.txt`",
        '"Replace wrld with world in notes.txt, then run: cat notes.txt"',
        "<context>\nMonday\n</context>\nreplace wrld with world in notes.txt then run cat notes.txt\nThank you",
        f"{TASK} [[demo delay=0]]",
    ],
)
def test_the_task_may_be_said_in_other_words(words: str) -> None:
    """With quotes, among what an agent adds of its own, with directives."""
    assert called(said(words), got(FILE), got(""), tools=(BASH,)) == ("Bash", {"command": "cat notes.txt"})


def test_words_between_the_results_change_nothing() -> None:
    """Agents add reminders of their own to the tools' results."""
    assert called(said(TASK), said("<system-reminder/>"), got(FILE), tools=(EDIT,))[0] == "Edit"


@pytest.mark.parametrize(
    "asked",
    [
        ask(said("Hello"), said("Replace it")),
        ask(said(TASK), got(FILE), got(""), got("hello world"), said("Thank you")),
        ask(said(TASK), tools=()),
        ask(said(TASK), tools=(Tool("weather", schema("city")), Tool("Read", None))),
        ask(said(TASK), must_call="Bash"),
        ask(said("Replace '' with x in notes.txt, then run cat notes.txt")),
    ],
    ids=["no task", "over", "no tools", "other tools", "a tool is forced", "nothing to replace"],
)
def test_no_task_is_no_step(asked: Ask) -> None:
    """Then the demo upstream answers as it always does."""
    assert next_step(asked) is None


def test_a_new_task_begins_anew() -> None:
    """The results of the one before do not count for it."""
    other = "Replace red with blue in colours.txt, then run wc colours.txt"
    turns = (said(TASK), got(FILE), got(""), got("hello world"), said(other))
    assert called(*turns, tools=(READ,)) == ("Read", {"file_path": "colours.txt"})


NUMBERED = "<content>\n1: hello wrld\n2: second line\n</content>"


@pytest.mark.parametrize("seen", [FILE, NUMBERED, "Output:\nhello wrld\nsecond line"])
def test_a_patch_has_the_whole_line(seen: str) -> None:
    """As it stood in the tool's result, without a line number."""
    name, patch = called(said(TASK), got(seen), tools=(PATCH, BASH))
    assert name == "apply_patch"
    assert patch == "*** Begin Patch\n*** Update File: notes.txt\n@@\n-hello wrld\n+hello world\n*** End Patch\n"


def test_an_agent_with_a_shell_alone_edits_by_it() -> None:
    """Also where the words mean something to sed or the shell; a list of words is how older agents run commands."""
    words = "Replace a.b/c&$x with 'd' in my.txt, then run ls"
    shell = Tool("shell", schema(command={"type": "array"}, required=("command",)))
    assert called(said(words), tools=(shell,)) == ("shell", {"command": ["bash", "-lc", "cat my.txt"]})
    edited = called(said(words), got("nothing"), tools=(BASH,))
    assert edited == ("Bash", {"command": r"sed -i 's/a\.b\/c\&\$x/d/g' my.txt"})


def test_an_agent_that_runs_javascript_calls_its_tools_from_it() -> None:
    """Codex, "code mode": commands and patches are calls of `tools`."""
    script = Tool("exec", None, "functions", freeform=True)
    calls = [called(said(TASK), *map(got, results), tools=(script,))[1] for results in ([], [FILE], [FILE, ""])]
    assert calls[0] == 'text((await tools.exec_command({"cmd":"cat notes.txt"})).output);\n'
    assert calls[1].startswith('text(await tools.apply_patch("*** Begin Patch\\n')
    assert calls[2] == calls[0]


def test_what_else_a_tool_requires_is_given() -> None:
    """Gemini's `replace` wants an instruction; what is not required is left away."""
    needed = ("file_path", "old_string", "new_string", "instruction")
    tool = Tool("replace", schema(*needed, allow_multiple={"type": "boolean"}, required=needed))
    _, arguments = called(said(TASK), got(FILE), tools=(tool,))
    assert tuple(arguments) == needed


# Over HTTP, in the shapes of each dialect


def chat(results: list[str]) -> tuple[str, Json]:
    """As opencode asks."""
    tools = [
        {"type": "function", "function": {"name": name, "parameters": schema(*fields)}}
        for name, fields in (("read", ["filePath"]), ("edit", ["filePath", "oldString", "newString"]))
    ]
    tools.append({"type": "function", "function": {"name": "bash", "parameters": schema("command")}})
    answered = [{"role": "tool", "tool_call_id": "c", "content": result} for result in results]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": TASK}, *answered]
    return "/openai/v1/chat/completions", {"model": "m", "tools": tools, "messages": messages}


def responses(results: list[str]) -> tuple[str, Json]:
    """As Codex asks: tools that an item adds, in a namespace, one of them freeform."""
    exec_command = {"type": "function", "name": "exec_command", "parameters": schema("cmd")}
    patch = {"type": "custom", "name": "apply_patch", "format": {"type": "text"}}
    space = {"type": "namespace", "name": "functions", "tools": [exec_command, patch]}
    answered = [
        {"type": f"{kind}_call_output", "call_id": "c", "output": [{"type": "input_text", "text": result}]}
        for kind, result in zip(("function", "custom_tool", "function"), results, strict=False)
    ]
    items = [{"type": "additional_tools", "role": "developer", "tools": [space]}, {"role": "user", "content": TASK}]
    return "/openai/v1/responses", {"model": "m", "input": [*items, *answered], "tools": [{"type": "web_search"}]}


def messages(results: list[str]) -> tuple[str, Json]:
    """As Claude Code asks, with a message of the system's at the end."""
    tools = [{"name": tool.name, "input_schema": tool.schema} for tool in (READ, EDIT, BASH)]
    given: list[Json] = [{"role": "user", "content": [{"type": "text", "text": TASK}]}]
    for result in results:
        block = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": result}]}
        given.append({"role": "user", "content": [block, {"type": "text", "text": "<system-reminder/>"}]})
    given.append({"role": "system", "content": "Go on."})
    return "/anthropic/v1/messages", {"model": "m", "max_tokens": 1_000, "tools": tools, "messages": given}


def content(results: list[str]) -> tuple[str, Json]:
    """As Gemini CLI asks."""
    fields = {
        "read_file": ["file_path"],
        "replace": ["file_path", "instruction", "old_string", "new_string"],
        "run_shell_command": ["command"],
    }
    declared = [{"name": name, "parametersJsonSchema": schema(*names)} for name, names in fields.items()]
    answered = [
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": result}}}]}
        for result in results
    ]
    body = {"contents": [{"role": "user", "parts": [{"text": TASK}]}, *answered]}
    return "/gemini/v1beta/models/m:generateContent", body | {"tools": [{"functionDeclarations": declared}]}


@pytest.mark.parametrize(
    ("request_of", "names"),
    [
        (chat, ["read", "edit", "bash"]),
        (responses, ["exec_command", "apply_patch", "exec_command"]),
        (messages, ["Read", "Edit", "Bash"]),
        (content, ["read_file", "replace", "run_shell_command"]),
    ],
)
def test_each_agent_is_asked_for_its_own_tools(
    http: httpx2.Client, request_of: Callable[[list[str]], tuple[str, Json]], names: list[str]
) -> None:
    """Turn by turn by name; the last answer is words about what the command printed."""
    results = [FILE, "done", "hello world"]
    for number, name in enumerate(names):
        path, body = request_of(results[:number])
        assert f'"name":"{name}"' in http.post(path, json=body).text
    path, body = request_of(results)
    assert "notes.txt now has world instead of wrld" in http.post(path, json=body).text


# Answers as JSON

HELLO = [{"role": "user", "content": "x"}]
CITY: Json = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("path", "body", "found"),
    [
        (
            "/openai/v1/chat/completions",
            {
                "messages": HELLO,
                "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": CITY}},
            },
            lambda answer: answer["choices"][0]["message"]["content"],
        ),
        (
            "/openai/v1/responses",
            {"input": "x", "text": {"format": {"type": "json_schema", "name": "x", "schema": CITY}}},
            lambda answer: answer["output"][-1]["content"][0]["text"],
        ),
        (
            "/anthropic/v1/messages",
            {"messages": HELLO, "max_tokens": 99, "output_config": {"format": {"type": "json_schema", "schema": CITY}}},
            lambda answer: answer["content"][0]["text"],
        ),
        (
            "/gemini/v1beta/models/m:generateContent",
            {"contents": [{"parts": [{"text": "x"}]}], "generationConfig": {"responseJsonSchema": CITY}},
            lambda answer: answer["candidates"][0]["content"]["parts"][0]["text"],
        ),
    ],
)
def test_an_answer_fits_the_schema_that_is_asked_for(
    http: httpx2.Client, path: str, body: Json, found: Callable[[Any], str]
) -> None:
    """Agents ask so for a title, or for how hard a task is."""
    answer = json.loads(found(post(http, path, {"model": "m", **body})))
    assert set(answer) == {"city", "days"}


# Odd requests

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 99) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each value that another one holds."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        yield (*path, step)
        yield from places(inner, (*path, step))


def put(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    """Return a value with something else in one place."""
    step, *rest = path
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[step] = put(changed[step], tuple(rest), junk) if rest else junk
    return changed


@pytest.mark.parametrize("request_of", [chat, responses, messages, content])
@given(data=st.data())
def test_odd_requests_are_answered_or_refused(
    http: httpx2.Client, request_of: Callable[[list[str]], tuple[str, Json]], data: st.DataObject
) -> None:
    """Whatever stands in any place of an agent's request, the demo upstream does not fail."""
    path, body = request_of([FILE, "done"])
    place = data.draw(st.sampled_from(list(places(body))))
    changed = put(body, place, data.draw(JUNK))
    assert http.post(path, json=changed).status_code in {200, 400}
