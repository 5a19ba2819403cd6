// Does a task by the tool loop of a JavaScript SDK, as a program of its own would, and writes what the SDK says was used.
//
//   node tool_loops.mjs LOOP GATEWAY KEY FOLDER TASK
//
// The tools work on the files in FOLDER. Written is {"text": …, "used": [{"input", "cached", "output", "reasoning"}, …]},
// one for each call that tells of its usage.

import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const [loop, url, key, folder, task] = process.argv.slice(2);

const objectOf = (...names) => ({
  type: "object",
  properties: Object.fromEntries(names.map((name) => [name, { type: "string" }])),
  required: names,
  additionalProperties: false,
});

const TOOLS = [
  {
    name: "read_file",
    parameters: objectOf("path"),
    run: ({ path }) => readFileSync(join(folder, path), "utf8"),
  },
  {
    name: "edit",
    parameters: objectOf("path", "old_string", "new_string"),
    run: ({ path, old_string, new_string }) => {
      const file = join(folder, path);
      writeFileSync(file, readFileSync(file, "utf8").replace(old_string, new_string));
      return "done";
    },
  },
  {
    name: "bash",
    parameters: objectOf("command"),
    run: ({ command }) => execFileSync("bash", ["-c", command], { cwd: folder, encoding: "utf8" }) || "no output",
  },
];
const run = (name, given) => TOOLS.find((tool) => tool.name === name).run(given);

const chatUsage = (usage) => ({
  input: usage.prompt_tokens,
  cached: usage.prompt_tokens_details.cached_tokens,
  output: usage.completion_tokens,
  reasoning: usage.completion_tokens_details.reasoning_tokens,
});

async function openaiChat(stream) {
  const { default: OpenAI } = await import("openai");
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key });
  const runner = client.chat.completions.runTools({
    model: "demo-gpt",
    stream,
    ...(stream ? { stream_options: { include_usage: true } } : {}),
    messages: [{ role: "user", content: task }],
    tools: TOOLS.map(({ name, parameters, run }) => ({
      type: "function",
      function: { name, parameters, parse: JSON.parse, function: run },
    })),
  });
  const text = await runner.finalContent();
  const completions = runner.allChatCompletions();
  return { text, used: completions.map(({ usage }) => chatUsage(usage)) };
}

// The loop of OpenAI's guide to function calling: what the model said goes back, with the tools' results behind it.
async function openaiResponses(stream) {
  const { default: OpenAI } = await import("openai");
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key });
  const tools = TOOLS.map(({ name, parameters }) => ({ type: "function", name, parameters, strict: true }));
  const input = [{ role: "user", content: task }];
  const used = [];
  for (;;) {
    const asked = { model: "demo-gpt", reasoning: { effort: "low" }, input, tools };
    const answer = stream
      ? await client.responses.stream(asked).finalResponse()
      : await client.responses.create(asked);
    used.push({
      input: answer.usage.input_tokens,
      cached: answer.usage.input_tokens_details.cached_tokens,
      output: answer.usage.output_tokens,
      reasoning: answer.usage.output_tokens_details.reasoning_tokens,
    });
    const calls = answer.output.filter((item) => item.type === "function_call");
    if (!calls.length) return { text: answer.output_text, used };
    input.push(...answer.output);
    for (const call of calls) {
      const output = run(call.name, JSON.parse(call.arguments));
      input.push({ type: "function_call_output", call_id: call.call_id, output });
    }
  }
}

async function anthropic(stream) {
  const { default: Anthropic } = await import("@anthropic-ai/sdk");
  const { betaTool } = await import("@anthropic-ai/sdk/helpers/beta/json-schema");
  const client = new Anthropic({ baseURL: url, apiKey: key });
  const runner = client.beta.messages.toolRunner({
    model: "claude-opus-5-5",
    max_tokens: 4000,
    stream,
    cache_control: { type: "ephemeral" },
    thinking: { type: "enabled", budget_tokens: 1024 },
    messages: [{ role: "user", content: task }],
    tools: TOOLS.map(({ name, parameters, run }) =>
      betaTool({ name, description: name, inputSchema: parameters, run })
    ),
  });
  const used = [];
  let last;
  for await (const turn of runner) {
    last = stream ? await turn.finalMessage() : turn;
    const { usage } = last;
    used.push({
      input: usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens,
      cached: usage.cache_read_input_tokens,
      output: usage.output_tokens,
      reasoning: usage.output_tokens_details.thinking_tokens,
    });
  }
  return { text: last.content.at(-1).text, used };
}

async function genai(stream) {
  const { GoogleGenAI } = await import("@google/genai");
  const client = new GoogleGenAI({ apiKey: key, httpOptions: { baseUrl: url } });
  const tool = {
    tool: async () => ({
      functionDeclarations: TOOLS.map(({ name, parameters }) => ({ name, parametersJsonSchema: parameters })),
    }),
    callTool: async (calls) =>
      calls.map(({ id, name, args }) => ({
        functionResponse: { id, name, response: { output: run(name, args) } },
      })),
  };
  const asked = {
    model: "gemini-3.8-flash",
    contents: task,
    config: { tools: [tool], thinkingConfig: { thinkingBudget: -1 } },
  };
  let text = "";
  let usage;
  if (stream) {
    for await (const part of await client.models.generateContentStream(asked)) {
      text += part.text ?? "";
      usage = part.usageMetadata ?? usage;
    }
  } else {
    const answer = await client.models.generateContent(asked);
    ({ text, usageMetadata: usage } = answer);
  }
  const thoughts = usage.thoughtsTokenCount ?? 0;
  const used = {
    input: usage.promptTokenCount,
    cached: usage.cachedContentTokenCount ?? 0,
    output: usage.candidatesTokenCount + thoughts,
    reasoning: thoughts,
  };
  return { text, used: [used] }; // the SDK's own loop tells of the last call alone
}

async function vercel(provider, stream) {
  const { generateText, jsonSchema, stepCountIs, streamText, tool } = await import("ai");
  const model = {
    openai: async () =>
      (await import("@ai-sdk/openai")).createOpenAI({ baseURL: `${url}/v1`, apiKey: key })("demo-gpt"),
    reasoning: async () =>
      (await import("@ai-sdk/openai")).createOpenAI({ baseURL: `${url}/v1`, apiKey: key })("gpt-6.2-sol"),
    compatible: async () =>
      (await import("@ai-sdk/openai-compatible")).createOpenAICompatible({
        name: "keydesk",
        baseURL: `${url}/v1`,
        apiKey: key,
        includeUsage: true,
      })("demo-gpt"),
    anthropic: async () =>
      (await import("@ai-sdk/anthropic")).createAnthropic({ baseURL: `${url}/v1`, apiKey: key })("claude-opus-5-5"),
    google: async () =>
      (await import("@ai-sdk/google")).createGoogleGenerativeAI({ baseURL: `${url}/v1beta`, apiKey: key })(
        "gemini-3.8-flash"
      ),
  };
  const asked = {
    model: await model[provider](),
    prompt: task,
    stopWhen: stepCountIs(9),
    // Otherwise it refers to reasoning that it takes for stored.
    ...(provider === "reasoning" ? { providerOptions: { openai: { store: false, reasoningEffort: "low" } } } : {}),
    tools: Object.fromEntries(
      TOOLS.map(({ name, parameters, run }) => [
        name,
        tool({ description: name, inputSchema: jsonSchema(parameters), execute: async (given) => run(given) }),
      ])
    ),
  };
  const answer = stream ? streamText(asked) : await generateText(asked);
  const [text, steps] = [await answer.text, await answer.steps];
  const used = steps.map(({ usage }) => ({
    input: usage.inputTokens,
    cached: usage.inputTokenDetails.cacheReadTokens ?? 0,
    output: usage.outputTokens,
    reasoning: usage.outputTokenDetails.reasoningTokens ?? 0,
  }));
  return { text, used };
}

const [name, way] = loop.split("/");
const stream = way === "stream";
const loops = {
  "openai-chat": () => openaiChat(stream),
  "openai-responses": () => openaiResponses(stream),
  anthropic: () => anthropic(stream),
  genai: () => genai(stream),
  "ai-openai": () => vercel("openai", stream),
  "ai-reasoning": () => vercel("reasoning", stream),
  "ai-compatible": () => vercel("compatible", stream),
  "ai-anthropic": () => vercel("anthropic", stream),
  "ai-google": () => vercel("google", stream),
};
console.log(JSON.stringify(await loops[name]()));
