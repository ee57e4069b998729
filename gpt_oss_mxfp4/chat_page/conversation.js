// The conversation: its turns, in memory alone, and what the API is sent of them.
import { ApiError, chat, keepKey, servedModel } from "./api.js";
import { Answer } from "./answer.js";
import { element } from "./element.js";

/**
 * Asks, one question at a time. `changed` is called when asking begins or ends, `status` with what to say aloud,
 * `follow` with what makes the conversation longer.
 */
export class Conversation {
  constructor(root, { settings, changed, status, follow }) {
    this.root = root;
    this.settings = settings;
    this.changed = changed;
    this.status = status;
    this.follow = follow;
    this.turns = []; // { question, answer }
    this.model = null;
    this.request = null; // AbortController of the one that runs
  }

  get asking() {
    return this.request !== null;
  }

  /** Gives the served model's name. */
  async findModel() {
    this.model ??= await servedModel();
    return this.model;
  }

  /** Asks a question behind all before it. */
  ask(question) {
    const text = element("p", { textContent: question });
    const shown = element("article", { class: "question", "aria-label": "Question" }, text);
    const turn = { question, answer: new Answer() };
    for (const { answer } of this.turns) answer.root.classList.add("earlier");
    this.turns.push(turn);
    this.root.append(shown, turn.answer.root);
    return this.answer(turn);
  }

  /** Asks the last question again; its answer is replaced. */
  again() {
    const turn = this.turns.at(-1);
    if (!turn || this.asking) return undefined;
    const answer = new Answer();
    turn.answer.root.replaceWith(answer.root);
    turn.answer = answer;
    return this.answer(turn);
  }

  /** Stops the answer that is coming, here and on the server. */
  stop() {
    this.request?.abort();
  }

  /** Forgets everything. */
  clear() {
    this.stop();
    this.turns = [];
    this.root.replaceChildren();
  }

  /** What the API gets: not what it refused before, nor reasoning, as harmony drops that of finished turns. */
  messages() {
    const { instructions } = this.settings();
    const sent = instructions ? [{ role: "system", content: instructions }] : [];
    const last = this.turns.at(-1);
    for (const turn of this.turns) {
      const { question, answer } = turn;
      if (answer.failed && !answer.text && turn !== last) continue;
      sent.push({ role: "user", content: question });
      if (answer.text) sent.push({ role: "assistant", content: answer.text });
    }
    return sent;
  }

  async answer(turn) {
    const { answer } = turn;
    const request = (this.request = new AbortController());
    const { effort, temperature } = this.settings();
    const drawing = setInterval(() => this.follow(() => answer.draw()), 1000 / 30);
    this.changed();
    this.status("Waiting for the answer.");
    let stopped = false;
    try {
      const model = await this.findModel();
      const body = { model, messages: this.messages(), reasoning_effort: effort, temperature };
      for await (const chunk of chat(body, request.signal)) answer.add(chunk);
    } catch (error) {
      stopped = error.name === "AbortError";
      if (!stopped) this.follow(() => this.fail(answer, error));
    } finally {
      clearInterval(drawing);
      if (this.request === request) this.request = null;
    }
    this.follow(() => answer.end({ stopped, again: () => this.again() }));
    this.changed();
    this.status(stopped ? "Stopped." : answer.text || "The answer has ended.");
  }

  fail(answer, error) {
    if (!(error instanceof ApiError)) {
      answer.fail(`The server's answer could not be read: ${error.message}`);
      return;
    }
    if (error.status !== 401) {
      answer.fail(error.status >= 400 ? `${error.message} (${error.status})` : error.message);
      return;
    }
    const field = element("input", { type: "password", required: true, autocomplete: "off" });
    const label = element("label", {}, "API key", field);
    const form = element("form", { class: "key" }, label, element("button", { textContent: "Try again" }));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      keepKey(field.value);
      this.again();
    });
    answer.fail("The server wants an API key. It is kept until this tab is closed.", form);
    field.focus();
  }
}
