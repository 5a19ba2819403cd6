"""A small task that the demo upstream does by the tools of a coding agent, in four answers.

    Replace wrld with world in notes.txt, then run cat notes.txt

Whoever says this to Codex, Claude Code, Gemini CLI, opencode or an agent with tools like theirs sees it read the file,
edit it, run the command and say so. The tools are those that the request offers, their arguments named as its schemas
name them. How far the task has come is seen from the tools' results, so nothing is remembered between two calls.

Source: what these agents send as their tools, as of the versions that tests/gateway/clients/package-lock.json names.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.demo import text
from toolkit.demo.answer import Ask, Tool, dump

_TASK = re.compile(r"\breplace (\S+) (?:with|by) (\S+) in (\S+?),? (?:then|and) run:? ([^\n]+)", re.IGNORECASE)
_LINE_NUMBER = re.compile(r"^\s*[0-9]+(?:[:|→\t]\s?)")
_MEANT_BY_SED = re.compile(r"[][\\.*^$/&]")
_QUOTES = "`'\""
_TOOLS_USED = 3
_SHOWN = 1_000
"""Characters of the command's output that the last answer repeats at most."""

_READING = ("Read", "read_file", "read")
_EDITING = ("Edit", "edit", "replace", "edit_file", "str_replace")
_PATCHING = ("apply_patch",)
_RUNNING = ("Bash", "bash", "run_shell_command", "exec_command", "shell_command", "shell", "execute_command")
_SCRIPTING = ("exec",)
"""Runs JavaScript that calls the agent's other tools: Codex, "code mode"."""

_NAMES = {
    "file": ("file_path", "filePath", "path", "absolute_path", "target_file"),
    "old": ("old_string", "oldString", "old_str", "old_text"),
    "new": ("new_string", "newString", "new_str", "new_text"),
    "patch": ("patchText", "patch", "input"),
    "command": ("command", "cmd"),
}
"""What a value is called in the tools' schemas."""

_THOUGHT_TOKENS = 8
"""How much longer each answer thinks than the one before."""


@dataclass(frozen=True, slots=True)
class Task:
    """What the user wants.

    Args:
        old: the words to be replaced.
        new: what stands there instead.
        file: where.
        command: what is run after that.
        results: what the tools have answered since.
    """

    old: str
    new: str
    file: str
    command: str
    results: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """What comes next: a tool's call with its arguments, or the words that end the task.

    Args:
        words: the text, empty beside a call.
        tool: what is called.
        arguments: JSON, or the text that a freeform tool takes.
        thought: reasoning tokens beyond those of a first answer.
    """

    words: str = ""
    tool: Tool | None = None
    arguments: str = ""
    thought: int = 0


def next_step(ask: Ask) -> Step | None:
    """Return what the model does next for the task that its user has set, or None if there is none to be done."""
    task = _task(ask) if ask.tools and not ask.must_call else None
    if task is None:
        return None
    thought = _THOUGHT_TOKENS * len(task.results)
    made = _call(task, ask.tools)
    if made is not None:
        tool, arguments = made
        return Step(tool=tool, arguments=arguments, thought=thought)
    return Step(_last_words(task), thought=thought) if len(task.results) >= _TOOLS_USED else None


def _task(ask: Ask) -> Task | None:
    """Find the last task that was set; it is over when the user speaks after its last result."""
    words: tuple[str, ...] | None = None
    results: list[str] = []
    for turn in ask.turns:
        if turn.result:
            results.append(turn.text)
        elif found := _TASK.search(text.without_directives(turn.text)):
            words, results = found.groups(), []
        elif len(results) >= _TOOLS_USED:
            words = None
    if words is None:
        return None
    old, new, file = (word.strip(_QUOTES) for word in words[:3])
    command = words[3].strip().strip("`")
    if command.count('"') % 2:  # opencode quotes what its command line was given
        command = command.removesuffix('"')
    return Task(old, new, file, command, tuple(results)) if old and file and command else None


def _call(task: Task, tools: Sequence[Tool]) -> tuple[Tool, str] | None:
    match len(task.results):
        case 0:
            given = {"file": task.file}
            return _use(tools, _READING, given) or _run(tools, f"cat {shlex.quote(task.file)}")
        case 1:
            return _edit(task, tools)
        case 2:
            return _run(tools, task.command)
    return None


def _edit(task: Task, tools: Sequence[Tool]) -> tuple[Tool, str] | None:
    edited = _use(tools, _EDITING, {"file": task.file, "old": task.old, "new": task.new})
    if edited:
        return edited
    line = next((line for line in task.results[0].splitlines() if task.old in line), None)
    if line is not None:
        line = _LINE_NUMBER.sub("", line)
        changed = line.replace(task.old, task.new)
        patch = f"*** Begin Patch\n*** Update File: {task.file}\n@@\n-{line}\n+{changed}\n*** End Patch\n"
        patched = _use(tools, _PATCHING, {"patch": patch}) or _script(tools, f"await tools.apply_patch({dump(patch)})")
        if patched:
            return patched
    old, new = (_MEANT_BY_SED.sub(r"\\\g<0>", words) for words in (task.old, task.new))
    return _run(tools, shlex.join(["sed", "-i", f"s/{old}/{new}/g", task.file]))


def _run(tools: Sequence[Tool], command: str) -> tuple[Tool, str] | None:
    called = f"(await tools.exec_command({dump({'cmd': command})})).output"
    return _use(tools, _RUNNING, {"command": command}) or _script(tools, called)


def _script(tools: Sequence[Tool], called: str) -> tuple[Tool, str] | None:
    tool = next((tool for tool in tools if tool.freeform and tool.name in _SCRIPTING), None)
    return (tool, f"text({called});\n") if tool else None


def _use(tools: Sequence[Tool], names: Sequence[str], given: Mapping[str, str]) -> tuple[Tool, str] | None:
    """Return the first tool of these names that takes what is given, and its arguments."""
    for tool in sorted((one for one in tools if one.name in names), key=lambda one: names.index(one.name)):
        if tool.freeform:
            return tool, next(iter(given.values()))
        arguments = _arguments(tool.schema, given)
        if arguments is not None:
            return tool, dump(arguments)
    return None


def _arguments(schema: Any, given: Mapping[str, str]) -> dict[str, Any] | None:
    """Put what is given where the schema wants it, and what else it requires beside it."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return None
    arguments: dict[str, Any] = {}
    for what, value in given.items():
        name = next((name for name in _NAMES[what] if name in properties), None)
        if name is None:
            return None
        kind = properties[name].get("type") if isinstance(properties[name], dict) else None
        arguments[name] = ["bash", "-lc", value] if str(kind).lower() == "array" else value
    required = schema.get("required")
    for name in required if isinstance(required, list) else []:
        if isinstance(name, str) and name in properties and name not in arguments:
            arguments[name] = text.example(properties[name], " ".join(given.values()), schema, 1)
    return arguments


def _last_words(task: Task) -> str:
    shown = task.results[_TOOLS_USED - 1][:_SHOWN].strip()
    return f"{task.file} now has {task.new} instead of {task.old}. `{task.command}` said:\n\n{shown}"
