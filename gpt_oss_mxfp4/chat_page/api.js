// The server's OpenAI API, of the page's own origin.

const KEY = "api-key"; // in sessionStorage: gone with the tab

/** What went wrong with a request, in words; `status` is HTTP's, or 0 where there was no response. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Keeps the key that the server asks for, until the tab is closed. */
export function keepKey(key) {
  // What no header can hold is no key: without one the server asks again.
  if (/^[\x21-\x7e]+$/.test(key.trim())) sessionStorage.setItem(KEY, key.trim());
  else sessionStorage.removeItem(KEY);
}

/** Gives the name of the model that is served. */
export async function servedModel() {
  const response = await request("/v1/models", {});
  const models = (await response.json()).data;
  if (!models?.length) throw new ApiError(0, "The server serves no model.");
  return models[0].id;
}

/**
 * Asks for an answer and gives the chunks of it as they come, until the server says that it is done.
 * Aborting `signal` closes the connection, which has the server stop too.
 */
export async function* chat(body, signal) {
  const response = await request("/v1/chat/completions", {
    method: "POST",
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    headers: { "Content-Type": "application/json" },
    signal,
  });
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(200, sentence(chunk.error.message ?? "The server failed."));
    yield chunk;
  }
  throw new ApiError(0, "The connection broke off before the answer was complete.");
}

async function request(path, options) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server cannot be reached. Is it still running?");
  }
  if (!response.ok) throw new ApiError(response.status, await refusal(response));
  return response;
}

async function refusal(response) {
  const text = await response.text();
  try {
    const { error, detail } = JSON.parse(text);
    return sentence(error?.message ?? detail);
  } catch {
    return sentence(text.slice(0, 500) || response.statusText);
  }
}

function sentence(text) {
  const trimmed = String(text).trim();
  return /[.!?]$/.test(trimmed) ? trimmed : `${trimmed}.`;
}

/** Gives the data of server-sent events, each as one text. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    while (true) {
      const { done, value } = await read(reader);
      if (done) return;
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return { done: true }; // the connection broke; what came before it counts
  }
}
