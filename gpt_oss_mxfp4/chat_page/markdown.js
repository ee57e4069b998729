// What a model writes, as elements: fenced code, headings, lists, inline code, bold. All else stays as it was written.
import { copyButton } from "./clipboard.js";
import { element } from "./element.js";

const FENCE = /^\s*(```+)\s*([\w+#.-]*)\s*$/;
const HEADING = /^#{1,6}\s+(.*)$/;
const ITEM = /^(\s*)(?:[-*]|(\d{1,9})[.)])\s+(.*)$/;
const INLINE = /`([^`\n]+)`|\*\*(?=\S)([^\n]*?\S)\*\*/g;

/** Shows a text that grows: blocks that have not changed keep their elements, and a selection in them. */
export class Markdown {
  constructor() {
    this.root = element("div", { class: "text" });
    this.blocks = [];
  }

  /** Shows the whole text so far. */
  show(text) {
    const blocks = blocksOf(text);
    let same = 0;
    while (same < blocks.length && sameBlock(blocks[same], this.blocks[same])) same++;
    while (this.root.children.length > same) this.root.lastChild.remove();
    this.root.append(...blocks.slice(same).map(render));
    this.blocks = blocks;
  }
}

/** Cuts a text into blocks: { kind: "code", language, text }, { kind: "list", items }, or "heading", "paragraph". */
export function blocksOf(text) {
  const blocks = [];
  const lines = text.split("\n");
  for (let i = 0; i < lines.length; ) {
    const fence = FENCE.exec(lines[i]);
    const heading = HEADING.exec(lines[i]);
    if (fence) {
      const begin = ++i;
      while (i < lines.length && lines[i].trim() !== fence[1]) i++;
      blocks.push({ kind: "code", language: fence[2], text: lines.slice(begin, i++).join("\n") });
    } else if (heading) {
      blocks.push({ kind: "heading", text: heading[1] });
      i++;
    } else if (ITEM.test(lines[i])) {
      const items = [];
      for (; i < lines.length && ITEM.test(lines[i]); i++) {
        const [, indent, number, item] = ITEM.exec(lines[i]);
        items.push({ depth: Math.min(3, indent.length >> 1), number, text: item });
      }
      blocks.push({ kind: "list", items });
    } else if (lines[i].trim() === "") {
      i++;
    } else {
      const begin = i++;
      while (i < lines.length && lines[i].trim() !== "" && !startsBlock(lines[i])) i++;
      blocks.push({ kind: "paragraph", text: lines.slice(begin, i).join("\n") });
    }
  }
  return blocks;
}

function startsBlock(line) {
  return FENCE.test(line) || HEADING.test(line) || ITEM.test(line);
}

function sameBlock(block, shown) {
  return shown !== undefined && JSON.stringify(block) === JSON.stringify(shown);
}

function render(block) {
  if (block.kind === "code") {
    const code = element("code", { textContent: block.text });
    const title = element("figcaption", {}, block.language || "code", copyButton(() => block.text));
    return element("figure", { class: "code" }, title, element("pre", { tabIndex: 0 }, code));
  }
  if (block.kind === "list") return list(block.items);
  return element(block.kind === "heading" ? "h3" : "p", {}, ...inline(block.text));
}

function list(items) {
  // The marker is the model's own: what it numbered stays numbered so.
  return element(
    "ul",
    {},
    ...items.map(({ depth, number, text }) => {
      const marker = element("span", { class: "marker", textContent: number ? `${number}.` : "•" });
      return element("li", { class: `depth-${depth}` }, marker, element("span", {}, ...inline(text)));
    }),
  );
}

function inline(text) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    parts.push(text.slice(end, match.index));
    parts.push(
      match[1] === undefined
        ? element("strong", {}, ...inline(match[2]))
        : element("code", { textContent: match[1] }),
    );
    end = match.index + match[0].length;
  }
  parts.push(text.slice(end));
  return parts;
}
