// The page: what its buttons, fields and keys do.
import { Conversation } from "./conversation.js";
import { element } from "./element.js";

const NEAR_END_PX = 80; // reading the last lines, rather than looking something up
const DEMO_EXAMPLES = ["What is 4587 + 968?", 'Reverse the word "lantern".', "How many s's are in possess?"];

const at = (id) => document.getElementById(id);
const main = at("conversation");
const message = at("message");

const conversation = new Conversation(at("turns"), {
  settings: () => ({
    effort: document.querySelector("input[name=effort]:checked").value,
    temperature: Number(at("temperature").value),
    instructions: at("instructions").value.trim(),
  }),
  status: (text) => (at("status").textContent = text),
  follow,
  changed,
});

function changed() {
  const { asking } = conversation;
  at("send").hidden = asking;
  at("stop").hidden = !asking;
  at("send").disabled = message.value.trim() === "";
  at("welcome").hidden = conversation.turns.length > 0;
  showModel();
}

/** Does what makes the conversation longer; whoever was at its end stays there. */
function follow(lengthen) {
  const atEnd = main.scrollHeight - main.scrollTop - main.clientHeight < NEAR_END_PX;
  lengthen();
  if (atEnd) main.scrollTo({ top: main.scrollHeight });
}

function ask(question) {
  if (conversation.asking || question.trim() === "") return;
  message.value = "";
  fit();
  message.focus();
  conversation.ask(question.trim());
  main.scrollTo({ top: main.scrollHeight });
}

/** Makes the field as high as its text. */
function fit() {
  message.style.height = "auto";
  message.style.height = `${message.scrollHeight}px`;
  changed();
}

function showSettings(shown) {
  follow(() => (at("settings").hidden = !shown));
  at("settings-toggle").ariaExpanded = String(shown);
}

function showModel() {
  const model = conversation.model ?? "";
  at("model").textContent = model.split("/").at(-1);
  at("model").title = model;
  at("examples").hidden = !model.includes("demo");
}

at("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  ask(message.value);
});
message.addEventListener("input", fit);
message.addEventListener("keydown", (event) => {
  // While an input method composes a character, Enter is its own.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  ask(message.value);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (conversation.asking) {
    conversation.stop();
  } else if (!at("settings").hidden) {
    showSettings(false);
    at("settings-toggle").focus();
  }
});
at("stop").addEventListener("click", () => {
  conversation.stop();
  message.focus();
});
at("new").addEventListener("click", () => {
  conversation.clear();
  changed();
  message.focus();
});
at("settings-toggle").addEventListener("click", () => showSettings(at("settings").hidden));
at("settings").addEventListener("submit", (event) => event.preventDefault());
at("temperature").addEventListener("input", () => (at("temperature-value").value = at("temperature").value));
for (const example of DEMO_EXAMPLES) {
  const button = element("button", { type: "button", textContent: example });
  button.addEventListener("click", () => ask(example));
  at("examples").append(element("li", {}, button));
}

fit();
conversation.findModel().then(showModel, () => {}); // what is wrong is told when something is asked
