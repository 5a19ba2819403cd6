// Reads a stream with a JavaScript SDK and writes its text.
//
//   node read_stream.mjs SDK GATEWAY KEY MODEL

const [sdk, url, key, model] = process.argv.slice(2);
const messages = [{ role: "user", content: "hi" }];
let text = "";

const SDKS = {
  async "openai chat"() {
    const { default: OpenAI } = await import("openai");
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key });
    for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
      text += chunk.choices[0]?.delta.content ?? "";
    }
  },
  async "openai responses"() {
    const { default: OpenAI } = await import("openai");
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key });
    for await (const event of await client.responses.create({ model, input: "hi", stream: true })) {
      if (event.type === "response.output_text.delta") text += event.delta;
    }
  },
  async "@anthropic-ai/sdk"() {
    const { default: Anthropic } = await import("@anthropic-ai/sdk");
    const client = new Anthropic({ baseURL: url, apiKey: key });
    for await (const event of await client.messages.create({ model, max_tokens: 10, messages, stream: true })) {
      if (event.type === "content_block_delta") text += event.delta.text;
    }
  },
  async "@google/genai"() {
    const { GoogleGenAI } = await import("@google/genai");
    const { models } = new GoogleGenAI({ apiKey: key, httpOptions: { baseUrl: url } });
    for await (const piece of await models.generateContentStream({ model, contents: "hi" })) text += piece.text ?? "";
  },
  async ai() {
    const { streamText } = await import("ai");
    const { createOpenAI } = await import("@ai-sdk/openai");
    const chosen = createOpenAI({ baseURL: `${url}/v1`, apiKey: key }).chat(model);
    const failed = { onError: ({ error }) => { throw error; } };
    for await (const piece of streamText({ model: chosen, prompt: "hi", ...failed }).textStream) text += piece;
  },
};

await SDKS[sdk]();
console.log(text);
