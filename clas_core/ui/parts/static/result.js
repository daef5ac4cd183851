// Draws what Steer found, or what is stored for what is set now. Every text goes in by textContent:
// a model's words are never markup.
const panes = element.querySelector(".result-panes");
const strip = element.querySelector(".result-strip");
const facts = element.querySelector(".result-facts");
const sentence = element.querySelector(".result-sentence");
const measured = element.querySelector(".result-measured");
const notice = element.querySelector(".result-notice");
const surprise = element.querySelector(".result-bars");
const parting = element.querySelector(".result-parting");
const story = element.querySelector(".result-story");
const names = new Intl.DisplayNames(["en"], { type: "language", fallback: "code" });

function nameOf(code) {
  try {
    return names.of(code);
  } catch { // a code that no language can have
    return code;
  }
}

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// Words of another language carry its colour, and its code at the first of several.
function words(spans) {
  let before = "";
  return spans.map(([whole, differs, code], index) => {
    const text = index ? whole : whole.trimStart();
    const named = code && text.trim();
    const node = differs || named ? make(differs ? "mark" : "span", "", text) : document.createTextNode(text);
    if (named) {
      node.classList.add("foreign");
      if (code === "?") {
        node.classList.add("unknown");
        node.title = "a word of no language here";
      } else {
        node.lang = code;
        node.title = nameOf(code);
        node.style.setProperty("--language", props.palette[code] || "currentColor");
        if (code !== before) node.dataset.tag = code;
      }
    }
    if (text.trim()) before = code;
    return node;
  });
}

function answerOf({ ask, answer, right, spoken }, dir, lang) {
  const box = make("div", "pane-asked");
  const question = make("p", "pane-ask", ask);
  const said = make("p", "pane-answer");
  for (const node of [question, said]) {
    node.dir = dir;
    if (lang) node.lang = lang;
  }
  const verdict = make("span", right ? "right" : "wrong", right ? "\u2713" : "\u2717");
  if (spoken) verdict.textContent += ` in ${nameOf(spoken)}`;
  verdict.setAttribute("role", "img");
  verdict.setAttribute("aria-label", (right ? "right" : "wrong") + (spoken ? `, in ${nameOf(spoken)}` : ""));
  said.append(make("span", "", answer || "(no answer)"), " ", verdict);
  box.append(make("p", "pane-about", "Of another story, below:"), question, said);
  return box;
}

function pane(value) {
  const card = make("section", `pane ${value.kind}`);
  card.setAttribute("aria-label", value.title);
  const head = make("header", "pane-head");
  head.append(make("h3", "pane-title", value.title), make("span", "pane-note", value.note));
  const body = make("p", "pane-text");
  body.dir = value.dir;
  if (value.lang) body.lang = value.lang;
  body.append(...words(value.spans));
  if (value.writing) body.append(make("span", "caret"));
  else if (!value.spans.length) {
    const empty = make("span", "pane-empty", value.empty || "");
    [empty.dir, empty.lang] = ["ltr", "en"];
    body.append(empty);
  }
  const foot = make("div", "pane-foot");
  for (const badge of value.badges) foot.append(make("span", "badge", badge));
  card.append(head, body);
  if (value.asked) card.append(answerOf(value.asked, value.dir, value.lang));
  card.append(foot);
  return card;
}

function drawNotice(value) {
  notice.hidden = !value;
  if (!value) return;
  const button = (label, target) => {
    const node = make("button", "notice-button", label);
    node.type = "button";
    node.addEventListener("click", () => document.getElementById(target)?.click());
    return node;
  };
  notice.replaceChildren(make("p", "", value.text));
  if (value.word)
    notice.append(
      button("Take an example that works", "another"),
      button(`Open a model that knows \u201c${value.word}\u201d`, "model-tab-button"),
    );
}

function bars(title, kind, list, most, top) {
  const box = make("div", `parting-side ${kind}`);
  box.append(make("h4", "", title));
  const rows = make("ol", "");
  for (const [text, share] of list) {
    const row = make("li", text === top ? "top" : "");
    const word = make("span", "parting-word", text);
    word.dir = "auto";
    const bar = make("i", "parting-bar");
    bar.style.setProperty("--size", String(share / most));
    const percent = 100 * share;
    row.append(word, bar, make("span", "parting-share", `${percent < 10 ? percent.toFixed(1) : percent.toFixed(0)} %`));
    rows.append(row);
  }
  box.append(rows);
  return box;
}

// How surprised the model is by text of every language: one is to jump, the others aren't.
function drawSurprise(value) {
  surprise.classList.toggle("stale", value === undefined);
  if (value === undefined) return; // still to come: what is there stays, dimmed
  surprise.hidden = !value;
  if (!value) return;
  const lines = [["unsteered", "before"], ["steered", "after"], ["control", "random"]].filter(([line]) => value[line]);
  const most = Math.max(...lines.flatMap(([line]) => value[line]), 0.001);
  const table = make("table", "bars-table");
  const head = make("tr", "");
  head.append(make("th", "", "Language"), ...lines.map(([line]) => make("th", `bars-${line}`, line === "control" ? "random control" : line)), make("th", ""));
  table.append(head);
  value.codes.forEach((code, index) => {
    const row = make("tr", code === value.aimed ? "aimed" : "");
    const name = make("th", "", value.names[index]);
    name.scope = "row";
    row.append(name);
    const drawn = make("td", "bars-drawn");
    for (const [line, kind] of lines) {
      row.append(make("td", `bars-number bars-${line}`, value[line][index].toFixed(2)));
      const bar = make("i", `bars-bar ${kind}`);
      bar.style.setProperty("--size", String(value[line][index] / most));
      drawn.append(bar);
    }
    row.append(drawn);
    table.append(row);
  });
  const of = value.own ? `the first ${value.count} sentences of the measured text` : `${value.count} stories that nothing was measured on`;
  const at = value.codes.indexOf(value.aimed);
  const rise = (line, index) => value[line][index] - value.unsteered[index];
  const rest = value.codes.map((_, index) => index).filter((index) => index !== at);
  const mean = (line) => rest.reduce((sum, index) => sum + rise(line, index), 0) / Math.max(1, rest.length);
  const signed = (number) => `${number < 0 ? "\u2212" : "+"}${Math.abs(number).toFixed(2)}`;
  let told = "";
  if (at >= 0) {
    told = `${value.names[at]} ${signed(rise("steered", at))} bits per byte, the others ${signed(mean("steered"))} in the mean.`;
    if (value.control) told += ` The same on random neurons: ${signed(rise("control", at))} and ${signed(mean("control"))}.`;
    if (value.control && rise("control", at) > rise("steered", at) / 2) told += " So much of it is not these neurons' own.";
  }
  const sentence = make("p", "bars-told", told);
  surprise.replaceChildren(
    make("h3", "", "How surprised the model is by text of each language"),
    sentence,
    table,
    make("p", "bars-key", `Bits per byte, lower is better predicted; ${of}.`),
  );
}

function drawParting(value) {
  parting.hidden = !value;
  if (!value) return;
  const title = value.parts ? "Where the texts part" : "The words are the same; here the guess moved most";
  const after = make("p", "parting-after");
  const quoted = make("q", "", value.after);
  quoted.dir = "auto";
  after.append("The four likeliest next words after ", quoted);
  const most = Math.max(...[...value.before, ...value.now].map(([, share]) => share), 0.001);
  const sides = make("div", "parting-sides");
  sides.append(
    bars("Unsteered", "before", value.before, most, value.before[0]?.[0]),
    bars("Steered", "after", value.now, most, value.now[0]?.[0]),
  );
  parting.replaceChildren(make("h3", "", title), after, sides);
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
  strip.replaceChildren(title, row, ...read(value));
}

// Which tokens are steered as the model reads them, where that isn't all of them.
function read(value) {
  if (!value.read) return [];
  const row = make("div", "strip-row strip-read");
  row.dir = value.dir;
  value.read.tokens.forEach((token, index) => {
    const cell = make("span", value.read.steered[index] ? "strip-token steered" : "strip-token", token.trim() ? token : token.includes("\n") ? "\u21b5" : "\u00b7");
    cell.dir = "auto";
    row.append(cell);
  });
  return [make("div", "strip-title", value.read.title), row];
}

function draw(value) {
  if (!value) return;
  element.dataset.state = value.state;
  window.clasShown = value.key || "";
  panes.style.setProperty("--panes", String(value.panes.length));
  panes.replaceChildren(...value.panes.map(pane));
  story.hidden = !value.story;
  story.textContent = value.story ? `Asked after this story: ${value.story}` : "";
  sentence.hidden = !value.sentence;
  sentence.textContent = value.sentence || "";
  measured.hidden = !value.measured;
  measured.textContent = value.measured || "";
  drawNotice(value.notice);
  drawSurprise(value.bars);
  drawParting(value.parting);
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

// What a run brought stays until something else is set; what is stored for that needs no run.
let drawn = null;
function choose() {
  const key = window.clasNow?.steer;
  const stored = window.clasStored?.[key];
  if (drawn === key && stored) return;
  const live = props.value && JSON.parse(props.value);
  if (stored && live?.key !== key) {
    drawn = key;
    draw({ ...stored.view, key });
  } else if (drawn !== null && live && key) {
    drawn = null;
    draw(live);
  }
}

document.addEventListener("clas-now", choose);
document.addEventListener("clas-stored", choose);
watch("value", () => {
  drawn = null;
  draw(props.value && JSON.parse(props.value));
});
draw(props.value && JSON.parse(props.value));
choose();
