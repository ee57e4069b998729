// The page: what its buttons, fields and keys do.
import { Conversation } from "./conversation.js";
import { element } from "./element.js";

const NEAR_END_PX = 80; // reading the last lines, rather than looking something up
const DEMO_EXAMPLES = ["What is 4587 + 968?", 'Reverse the word "lantern".', "How many s's are in possess?"];

const at = (id) => document.getElementById(id);
const main = at("conversation");
const message = at("message");
let following = true;

const conversation = new Conversation(at("turns"), {
  settings: () => ({
    effort: document.querySelector("input[name=effort]:checked").value,
    temperature: Number(at("temperature").value),
    instructions: at("instructions").value.trim(),
  }),
  status: (text) => (at("status").textContent = text),
  drawn: () => following && main.scrollTo({ top: main.scrollHeight }),
  changed,
});

function changed() {
  const { asking } = conversation;
  at("send").hidden = asking;
  at("stop").hidden = !asking;
  at("send").disabled = message.value.trim() === "";
  at("welcome").hidden = conversation.turns.length > 0;
}

function ask(question) {
  if (conversation.asking || question.trim() === "") return;
  following = true;
  message.value = "";
  fit();
  message.focus();
  conversation.ask(question.trim());
}

/** Makes the field as high as its text. */
function fit() {
  message.style.height = "auto";
  message.style.height = `${message.scrollHeight}px`;
  changed();
}

function showSettings(shown) {
  at("settings").hidden = !shown;
  at("settings-toggle").ariaExpanded = String(shown);
  if (following) main.scrollTo({ top: main.scrollHeight });
}

async function showModel() {
  let model;
  try {
    model = await conversation.findModel();
  } catch {
    return; // told when something is asked
  }
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
main.addEventListener("scroll", () => {
  following = main.scrollHeight - main.scrollTop - main.clientHeight < NEAR_END_PX;
});
for (const example of DEMO_EXAMPLES) {
  const button = element("button", { type: "button", textContent: example });
  button.addEventListener("click", () => ask(example));
  at("examples").append(element("li", {}, button));
}

fit();
showModel();
