// Draws what Steer found. Every text goes in by textContent: a model's words are never markup.
const panes = element.querySelector(".result-panes");
const strip = element.querySelector(".result-strip");
const facts = element.querySelector(".result-facts");
const sentence = element.querySelector(".result-sentence");

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function pane(value) {
  const card = make("section", `pane ${value.kind}`);
  card.setAttribute("aria-label", value.title);
  const head = make("header", "pane-head");
  head.append(make("h3", "pane-title", value.title), make("span", "pane-note", value.note));
  const body = make("p", "pane-text");
  body.dir = value.dir;
  if (value.lang) body.lang = value.lang;
  for (const [text, differs] of value.spans)
    body.append(differs ? make("mark", "", text) : document.createTextNode(text));
  if (value.writing) body.append(make("span", "caret"));
  else if (!value.spans.length) body.append(make("span", "pane-empty", value.empty || ""));
  const foot = make("div", "pane-foot");
  for (const badge of value.badges) foot.append(make("span", "badge", badge));
  card.append(head, body, foot);
  return card;
}

function drawStrip(value) {
  strip.hidden = !value;
  if (!value) return;
  const title = make("div", "strip-title", value.title);
  const row = make("div", "strip-row");
  row.dir = value.dir;
  row.setAttribute("role", "list");
  value.tokens.forEach((token, index) => {
    const cell = make("span", "strip-cell");
    cell.setAttribute("role", "listitem");
    cell.tabIndex = index ? -1 : 0; // one stop, then arrows
    const size = value.kl[index];
    const label = `Token ${index + 1} \u201c${token}\u201d: ${size.toPrecision(2)} nats`;
    cell.title = label;
    cell.setAttribute("aria-label", label);
    const bar = make("i", "strip-bar");
    // A fixed scale, so that two runs compare; the root keeps small shifts visible.
    bar.style.setProperty("--size", String(Math.min(1, Math.sqrt(size / value.full))));
    const text = make("span", "strip-token", token.trim() ? token : token.includes("\n") ? "\u21b5" : "\u00b7");
    text.dir = "auto";
    cell.append(bar, text);
    if (index === value.peak) cell.classList.add("peak");
    row.append(cell);
  });
  row.addEventListener("keydown", (event) => {
    const forward = row.dir === "rtl" ? "ArrowLeft" : "ArrowRight";
    if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
    const to = event.key === forward ? "nextElementSibling" : "previousElementSibling";
    const next = document.activeElement[to];
    if (!next) return;
    event.preventDefault();
    document.activeElement.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  strip.replaceChildren(title, row);
}

function draw() {
  const value = props.value && JSON.parse(props.value);
  if (!value) return;
  element.dataset.state = value.state;
  panes.style.setProperty("--panes", String(value.panes.length));
  panes.replaceChildren(...value.panes.map(pane));
  sentence.hidden = !value.sentence;
  sentence.textContent = value.sentence || "";
  drawStrip(value.strip);
  facts.hidden = !value.facts?.length;
  facts.replaceChildren(
    ...(value.facts || []).map(([name, text, help]) => {
      const item = make("div", "fact");
      item.title = help;
      item.append(make("dt", "", name), make("dd", "", text));
      return item;
    }),
  );
}

watch("value", draw);
draw();
