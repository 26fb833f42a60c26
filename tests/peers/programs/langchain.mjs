// A LangChain.js agent under the published middleware, its model scripted: `node langchain.mjs URL MOOD`.
// MOOD is `well`, or what is broken: `tool` or `model`. The last line of the output is what came of it, as JSON.

import { webcrypto } from 'node:crypto';
import { init, shutdown, withSpan } from '@prefactor/langchain';
import { AIMessage, createAgent, fakeModel, HumanMessage, tool } from 'langchain';
import * as z from 'zod';

globalThis.crypto ??= webcrypto; // which Node 18 does not have as a global, and LangChain needs

const [url, mood] = process.argv.slice(2);
const prices = { tea: 3.5, cake: 4.25 };

const middleware = init({
  httpConfig: {
    apiUrl: url,
    apiToken: 'any-token',
    agentId: 'shop',
    agentIdentifier: 'shop-1.0',
    agentName: 'Shop',
    maxRetries: 9,
    initialRetryDelay: 10,
    maxRetryDelay: 50,
  },
});

const priceOf = tool(
  async ({ article }) => {
    if (mood === 'tool') throw new Error('no price');
    return String(prices[article]);
  },
  { name: 'price_of', description: 'Looks up a price.', schema: z.object({ article: z.string() }) },
);

const articles = Object.keys(prices);
const calls = articles.map((article, number) => ({ name: 'price_of', args: { article }, id: `call-${number}` }));
const model = mood === 'model'
  ? fakeModel().respond(new Error('no model'))
  : fakeModel().respondWithTools(calls).respond(new AIMessage('Tea and cake are 7.75 together.'));

const seen = {};
try {
  const agent = createAgent({ model, tools: [priceOf], middleware: [middleware] });
  const { messages } = await agent.invoke({ messages: [new HumanMessage('What are tea and cake?')] });
  seen.answer = messages.at(-1).content;
} catch (error) {
  seen.raised = error.constructor.name;
}
await withSpan({ name: 'afterwards', spanType: 'custom', inputs: { tidy: true } }, async () => ({ tidied: true }));
await shutdown();
console.log(JSON.stringify(seen));
