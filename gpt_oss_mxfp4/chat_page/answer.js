// One answer on the page: its reasoning, folded; its text; what became of it.
import { copyButton } from "./clipboard.js";
import { element, icon } from "./element.js";
import { Markdown } from "./markdown.js";

/** Shows an answer while it comes. */
export class Answer {
  constructor() {
    this.text = "";
    this.reasoning = "";
    this.calls = [];
    this.usage = null;
    this.finish = null;
    this.failed = false;
    this.begin = performance.now();
    this.reasonedMs = null; // until the answer itself began
    this.firstMs = null;
    this.lastMs = null;

    this.label = element("span", { textContent: "Reasoning" });
    this.thoughts = element("div", { class: "thoughts" });
    this.folded = element(
      "details",
      { class: "reasoning", hidden: true },
      element("summary", {}, icon("chevron"), this.label),
      this.thoughts,
    );
    this.markdown = new Markdown();
    this.waiting = element("p", { class: "waiting" }, element("span", { class: "unseen", textContent: "Waiting" }));
    this.notes = element("div", { class: "notes" });
    this.foot = element("footer", { hidden: true });
    this.root = element(
      "article",
      { class: "answer", "aria-label": "Answer", "aria-busy": "true" },
      this.folded,
      this.markdown.root,
      this.waiting,
      this.notes,
      this.foot,
    );
  }

  /** Takes a chunk of OpenAI's stream. */
  add(chunk) {
    this.usage = chunk.usage ?? this.usage;
    const choice = chunk.choices?.[0];
    if (!choice) return;
    const now = performance.now();
    const { content, reasoning_content, reasoning, tool_calls } = choice.delta ?? {};
    const thought = reasoning_content ?? reasoning;
    if (thought || content || tool_calls) {
      this.firstMs ??= now;
      this.lastMs = now;
    }
    if (thought) this.reasoning += thought;
    if (content) {
      this.text += content;
      this.reasonedMs ??= now - this.begin;
    }
    for (const call of tool_calls ?? []) this.addCall(call);
    this.finish = choice.finish_reason ?? this.finish;
  }

  addCall({ index = 0, function: called = {} }) {
    const call = (this.calls[index] ??= { name: "", arguments: "" });
    call.name += called.name ?? "";
    call.arguments += called.arguments ?? "";
  }

  /** Shows what has come so far; at most once a frame. */
  draw() {
    const reasons = this.reasoning !== "";
    this.folded.hidden = !reasons;
    if (reasons) {
      const ms = this.reasonedMs ?? performance.now() - this.begin;
      this.label.textContent = `Reasoning, ${(ms / 1000).toFixed(1)} s`;
      const shows = this.folded.open || this.reasonedMs !== null;
      if (shows && this.thoughts.textContent !== this.reasoning) this.thoughts.textContent = this.reasoning;
    }
    this.folded.classList.toggle("going", this.reasonedMs === null && this.root.ariaBusy === "true");
    this.waiting.hidden = reasons || this.text !== "";
    this.markdown.show(this.text);
  }

  /** Ends the answer: with counts, and buttons to copy it and to have it made again. */
  end({ stopped = false, again }) {
    this.reasonedMs ??= performance.now() - this.begin;
    this.root.ariaBusy = "false";
    this.draw();
    this.waiting.hidden = true;
    for (const { name, arguments: given } of this.calls.filter(Boolean)) {
      this.note(`The model called ${name} with ${given}, but this page offers no tools.`);
    }
    if (stopped) this.note("Stopped.");
    else if (this.finish === "length") this.note("Cut off: the tokens are used up.");
    else if (this.finish && !this.text && !this.calls.length) this.note("The model ended without an answer.");
    const repeat = element("button", { type: "button", class: "quiet" }, icon("again"), "Regenerate");
    repeat.addEventListener("click", again);
    if (this.text) this.foot.append(copyButton(() => this.text));
    this.foot.append(repeat, element("span", { class: "counts", textContent: this.counts() }));
    this.foot.hidden = false;
  }

  /** Says something about the answer, in its place. */
  note(text, ...more) {
    this.notes.append(element("p", { class: "note" }, text, ...more));
  }

  /** Shows an error in the answer's place. */
  fail(message, ...more) {
    this.failed = true;
    this.notes.append(element("div", { class: "error", role: "alert" }, element("p", { textContent: message }), ...more));
  }

  counts() {
    if (!this.usage) return "";
    const { prompt_tokens: prompt, completion_tokens: made } = this.usage;
    const seconds = (this.lastMs - this.firstMs) / 1000;
    // The first token comes with the prompt, so it is not in the time between the first and the last.
    const rate = made > 1 && seconds > 0 ? `, ${((made - 1) / seconds).toFixed(1)} tokens/s` : "";
    return `prompt ${prompt} tokens, answer ${made}${rate}`;
  }
}
