// A button that copies text, and says so.
import { element, icon } from "./element.js";

const SAID_MS = 1500;

/** Makes the button; `text` gives what is copied when it is pressed. */
export function copyButton(text) {
  const label = element("span", { textContent: "Copy" });
  const button = element("button", { type: "button", class: "quiet" }, icon("copy"), label);
  button.addEventListener("click", async () => {
    label.textContent = (await copied(text())) ? "Copied" : "Not copied";
    setTimeout(() => (label.textContent = "Copy"), SAID_MS);
  });
  return button;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copiedBySelection(text); // over plain http, but on this machine itself, there is no clipboard
  }
}

function copiedBySelection(text) {
  const held = element("textarea", { value: text, class: "unseen", readOnly: true });
  const focused = document.activeElement;
  document.body.append(held);
  held.select();
  const done = document.execCommand("copy");
  held.remove();
  focused?.focus();
  return done;
}
