// The official TypeScript client through the gateway: prints what came, as one line of JSON.
// node client.mjs SDK_FOLDER URL KEY

const [sdk, url, key] = process.argv.slice(2);
const { Client } = await import(`${sdk}/dist/esm/client/index.js`);
const { StreamableHTTPClientTransport } = await import(`${sdk}/dist/esm/client/streamableHttp.js`);
const types = await import(`${sdk}/dist/esm/types.js`);

const seen = { asked: [], logs: [], progress: [], updated: [], changed: 0 };
const client = new Client(
  { name: "typescript", version: "1" },
  { capabilities: { sampling: {}, roots: { listChanged: true }, elicitation: {} } },
);
client.setRequestHandler(types.CreateMessageRequestSchema, async (request) => {
  seen.asked.push(request.method);
  return { role: "assistant", model: "m", content: { type: "text", text: "hi" } };
});
client.setRequestHandler(types.ElicitRequestSchema, async (request) => {
  seen.asked.push(request.method);
  return { action: "accept", content: { response: "Ada" } };
});
client.setRequestHandler(types.ListRootsRequestSchema, async (request) => {
  seen.asked.push(request.method);
  return { roots: [{ uri: "file:///home", name: "home" }] };
});
client.setNotificationHandler(types.LoggingMessageNotificationSchema, (note) => seen.logs.push(note.params.data));
client.setNotificationHandler(types.ResourceUpdatedNotificationSchema, (note) => seen.updated.push(note.params.uri));
client.setNotificationHandler(types.ToolListChangedNotificationSchema, () => seen.changed++);

const transport = new StreamableHTTPClientTransport(new URL(url), {
  requestInit: { headers: { Authorization: `Bearer ${key}` } },
});
await client.connect(transport);
const text = (result) => result.content[0].text;
const call = (name, args = {}, options) => client.callTool({ name, arguments: args }, undefined, options);
const until = async (holds, work) => {
  for (let tries = 0; tries < 100 && !holds(); tries++) {
    await work();
    await new Promise((done) => setTimeout(done, 100));
  }
};

seen.tools = (await client.listTools()).tools.map((tool) => tool.name);
seen.resources = (await client.listResources()).resources.length;
seen.prompts = (await client.listPrompts()).prompts.map((prompt) => prompt.name);
seen.one = text(await call("one__test_simple_text"));
seen.two = text(await call("two__test_simple_text"));
seen.three = text(await call("three__echo", { message: "hello" }));
seen.sampled = text(await call("one__test_sampling", { prompt: "hello" }));
seen.elicited = text(await call("one__test_elicitation", { message: "Name?" }));
seen.roots = text(await call("two__roots"));
await call("one__count", { key: "typescript" }, { onprogress: (step) => seen.progress.push(step.progress) });
await call("two__test_tool_with_logging");
seen.failed = (await call("one__test_error_handling")).isError;
seen.read = (await client.readResource({ uri: "test://static-text" })).contents[0].text;
seen.completed = (
  await client.complete({
    ref: { type: "ref/prompt", name: "one__test_prompt_with_arguments" },
    argument: { name: "arg1", value: "pa" },
  })
).completion.values;
await client.setLoggingLevel("warning");
await client.subscribeResource({ uri: "test://watched-resource" });
await until(() => seen.updated.length, () => call("one__touch"));
await until(() => seen.changed, () => call("one__change"));
try {
  await call("no_such_tool");
} catch (error) {
  seen.unknown = error.code;
}
const aborting = new AbortController();
setTimeout(() => aborting.abort("enough"), 300);
try {
  await call("one__hang", { key: "typescript" }, { signal: aborting.signal });
} catch (error) {
  seen.aborted = String(error);
}
await until(() => seen.cancelled === "1", async () => {
  seen.cancelled = text(await call("one__tally", { key: "typescript cancelled" }));
});
await transport.terminateSession();
await client.close();
console.log(JSON.stringify(seen));
