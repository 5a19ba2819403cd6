// Asks for one answer with a JavaScript SDK and its own defaults, as a stream or not, and says how it ended by the status.
//
//   node ask_once.mjs SDK GATEWAY KEY TEXT [stream]

const [sdk, url, key, text, stream] = process.argv.slice(2);

async function read(answer) {
  for await (const _ of answer);
}

const SDKS = {
  async openai() {
    const { default: OpenAI } = await import("openai");
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key });
    const messages = [{ role: "user", content: text }];
    const answer = await client.chat.completions.create({ model: "gpt-test", messages, stream: Boolean(stream) });
    if (stream) await read(answer);
  },
  async "@anthropic-ai/sdk"() {
    const { default: Anthropic } = await import("@anthropic-ai/sdk");
    const client = new Anthropic({ baseURL: url, apiKey: key });
    const messages = [{ role: "user", content: text }];
    const asked = { model: "claude-test", max_tokens: 100, messages, stream: Boolean(stream) };
    const answer = await client.messages.create(asked);
    if (stream) await read(answer);
  },
  async "@google/genai"() {
    const { GoogleGenAI } = await import("@google/genai");
    const { models } = new GoogleGenAI({ apiKey: key, httpOptions: { baseUrl: url } });
    const asked = { model: "gemini-test", contents: text };
    if (stream) await read(await models.generateContentStream(asked));
    else await models.generateContent(asked);
  },
  async ai() {
    const { generateText, streamText } = await import("ai");
    const { createOpenAI } = await import("@ai-sdk/openai");
    const model = createOpenAI({ baseURL: `${url}/v1`, apiKey: key })("gpt-test");
    const failed = { onError: ({ error }) => { throw error; } };
    if (stream) await read(streamText({ model, prompt: text, ...failed }).fullStream);
    else await generateText({ model, prompt: text });
  },
};

await SDKS[sdk]();
