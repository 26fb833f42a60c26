// Agents on the published TypeScript SDK, written as its users do: `node core.mjs URL SCENARIO`.
// The last line of the output is what they saw, as JSON.

import * as sdk from '@prefactor/core';

const TOKEN = 'any-token';
const [url, scenario] = process.argv.slice(2);

const httpConfig = {
  apiUrl: url,
  apiToken: TOKEN,
  agentId: 'bookkeeper',
  agentIdentifier: 'books-1.0',
  agentName: 'Bookkeeper',
  agentDescription: 'Keeps the books',
  maxRetries: 9,
  initialRetryDelay: 10,
  maxRetryDelay: 50,
};
const object = { type: 'object' };
const schemas = {
  external_identifier: 'books-schemas-1',
  span_schemas: { agent: object, llm: object, tool: object },
  span_result_schemas: { agent: object, llm: object, tool: object },
};

const { tracer, agentManager, shutdown } = sdk.createCore(sdk.createConfig({ httpConfig }));
const http = new sdk.HttpClient(sdk.HttpTransportConfigSchema.parse(httpConfig));
const read = (path) => http.request(`/api/v1/${path}`);
const write = (path, body) => http.request(`/api/v1/${path}`, { method: 'POST', body });

async function until(look) {
  for (const end = Date.now() + 120_000; ; ) {
    const found = await look();
    if (found) return found;
    if (Date.now() > end) throw new Error('what is waited for did not come');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function begin() {
  agentManager.registerSchema(schemas);
  agentManager.startInstance({ agentId: 'bookkeeper', agentIdentifier: 'books-1.0', agentName: 'Bookkeeper' });
}

async function end() {
  agentManager.finishInstance();
  await shutdown();
}

// Spans of the length of a function, below an agent's that is sent as it begins.
async function task(inside) {
  const span = tracer.startSpan({ name: 'close', spanType: 'agent', inputs: { task: 'close the books' } });
  await sdk.SpanContext.runAsync(span, inside);
  tracer.endSpan(span, { outputs: { closed: true } });
}

const scenarios = {
  async work() {
    begin();
    await task(async () => {
      const asking = tracer.startSpan({ name: 'ask', spanType: 'llm', inputs: { prompt: 'What is open?' } });
      await sdk.SpanContext.runAsync(asking, async () => {
        const look = { name: 'ledger', spanType: 'tool', inputs: { book: 'ledger' }, metadata: { page: 3 } };
        await sdk.withSpan(tracer, look, async () => ({ open: 2 }));
      });
      const tokenUsage = { promptTokens: 3, completionTokens: 4, totalTokens: 7 };
      tracer.endSpan(asking, { outputs: { answer: 'Two invoices' }, tokenUsage });
      const paying = [0, 1, 2, 3, 4].map((number) => {
        const pay = { name: 'bank', spanType: 'tool', inputs: { invoice: number } };
        return sdk.withSpan(tracer, pay, async () => ({ paid: number }));
      });
      await Promise.all(paying);
    });
    await end();
    return {};
  },

  async fail() {
    begin();
    let raised = '';
    await task(async () => {
      const broken = { name: 'ledger', spanType: 'tool', inputs: { book: 'lost' } };
      await sdk.withSpan(tracer, broken, async () => { throw new RangeError('no such book'); })
        .catch((error) => { raised = error.message; });
    });
    const failing = tracer.startSpan({ name: 'again', spanType: 'agent', inputs: {} });
    tracer.endSpan(failing, { error: new Error('given up') });
    await end();
    return { raised };
  },

  // Without a schema the SDK starts no instance; its spans are sent all the same.
  async 'without schemas'() {
    await task(async () => {
      await sdk.withSpan(tracer, { name: 'ledger', spanType: 'tool', inputs: {} }, async () => ({ open: 0 }));
    });
    await end();
    return {};
  },

  async 'be stopped'() {
    begin();
    let reply;
    await task(async () => {
      await sdk.withSpan(tracer, { name: 'first', spanType: 'tool', inputs: {} }, async () => ({ done: 1 }));
      const instance = await until(async () => {
        const { summaries } = await read('agent_instance');
        return summaries.find((found) => found.status === 'active' && found.span_counts.total === 2);
      });
      reply = await write(`agent_instance/${instance.id}/terminate`, { reason: 'too costly' });
      await sdk.withSpan(tracer, { name: 'second', spanType: 'tool', inputs: {} }, async () => ({ done: 2 }));
    });
    await end();
    return { status: reply.details.status, reason: reply.details.termination_reason };
  },

  // The clients below the SDK, where it has them: each call on its own.
  async clients() {
    const instances = new sdk.AgentInstanceClient(http);
    const spans = new sdk.AgentSpanClient(http);
    const timestamp = '2026-03-01T10:00:00.456Z';
    const version = { external_identifier: 'books-1.0', name: 'Bookkeeper' };
    const registered = await instances.register({ agent_version: version, agent_schema_version: schemas });
    const { id } = registered.details;
    const started = await instances.start(id, { timestamp: '2026-03-01T09:59:00.123Z' });
    const details = { agent_instance_id: id, schema_name: 'agent', status: 'active', payload: { a: 1 } };
    const parent = await spans.create({ details });
    const whole = { ...details, status: 'complete', result_payload: { b: 2 }, parent_span_id: parent.details.id };
    const created = await spans.create({ details: { ...whole, finished_at: timestamp } });
    await spans.finish(parent.details.id, timestamp, { status: 'failed', result_payload: { c: 3 } });
    const { summaries } = await read(`agent_spans?agent_instance_id=${id}`);
    const finished = await instances.finish(id, { status: 'failed', timestamp });
    let refusal = {};
    await instances.finish(id, {}).catch((error) => {
      refusal = { name: error.constructor.name, status: error.status, code: error.responseBody.code };
    });
    return { registered, started, parent, created, summaries, finished, refusal };
  },
};

const seen = await scenarios[scenario]();
console.log(JSON.stringify(seen));
