// Two small plots over strength: what the model still knows, and which language it still speaks.
// value: [{strengths, knows, speaks, counts, code, language, key}] as JSON, as curves_value makes it
const WIDTH = 320;
const HEIGHT = 150;
const LEFT = 40;
const BOTTOM = 24;
const PAD = 10;
const box = element.querySelector(".curves");
const body = element.querySelector(".curves-body");
const said = element.querySelector(".curves-said");
const svg = (tag, attributes, text) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
};
const percent = (share) => `${Math.round(100 * share)} %`;
let value = null;
let cursors = [];
let x = () => 0;

function panel(kind, title) {
  const { strengths } = value;
  const low = strengths[0];
  const high = strengths.at(-1);
  x = (at) => LEFT + ((at - low) / (high - low)) * (WIDTH - LEFT - PAD);
  const y = (share) => PAD + (1 - share) * (HEIGHT - PAD - BOTTOM);
  const line = (points) => points.map(([share], i) => `${i ? "L" : "M"}${x(strengths[i]).toFixed(1)} ${y(share).toFixed(1)}`).join("");
  const { steered, controls } = value[kind];
  const figure = document.createElement("figure");
  figure.className = `curve ${kind}`;
  const caption = document.createElement("figcaption");
  caption.textContent = title;
  const last = strengths.length - 1;
  const spans = controls.map((one) => percent(one[last][0])).join(", ");
  const drawing = svg("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    role: "img",
    "aria-label": `${title}, at strength ${high}: ${percent(steered[last][0])} steered; ${spans} under random neurons; ${percent(steered[strengths.indexOf(0)][0])} unsteered.`,
  });
  for (const share of [0, 0.5, 1])
    drawing.append(
      svg("line", { x1: LEFT, x2: WIDTH - PAD, y1: y(share), y2: y(share), class: "grid" }),
      svg("text", { x: LEFT - 6, y: y(share) + 4, "text-anchor": "end" }, percent(share)),
    );
  for (const at of strengths.filter(Number.isInteger))
    drawing.append(svg("text", { x: x(at), y: HEIGHT - 6, "text-anchor": "middle" }, at === 0 ? "off" : String(at).replace("-", "\u2212")));
  for (const one of controls) drawing.append(svg("path", { d: line(one), class: "control" }));
  const up = steered.map(([, , top], i) => `${i ? "L" : "M"}${x(strengths[i])} ${y(top)}`).join("");
  const down = steered.map(([, bottom], i) => `L${x(strengths[i])} ${y(bottom)}`).reverse().join("");
  drawing.append(svg("path", { d: `${up}${down}Z`, class: "band" }), svg("path", { d: line(steered), class: "steered" }));
  const cursor = svg("line", { y1: PAD, y2: HEIGHT - BOTTOM, class: "cursor" });
  const dot = svg("circle", { r: 5, class: "dot" });
  drawing.append(cursor, dot);
  cursors.push((at) => {
    const place = strengths.findIndex((one) => one >= at - 1e-9);
    const i = place < 0 ? last : place;
    const before = Math.max(0, i - 1);
    const span = strengths[i] - strengths[before] || 1;
    const part = i === before ? 0 : Math.min(1, (at - strengths[before]) / span);
    const share = steered[before][0] + part * (steered[i][0] - steered[before][0]);
    for (const side of ["x1", "x2"]) cursor.setAttribute(side, x(at));
    dot.setAttribute("cx", x(at));
    dot.setAttribute("cy", y(share));
  });
  figure.append(caption, drawing);
  return figure;
}

function tell(at) {
  if (!value) return;
  for (const move of cursors) move(at);
  const place = value.strengths.findIndex((one) => Math.abs(one - at) < 1e-6);
  if (place < 0) {
    said.textContent = "Between two strengths that were measured: the dots stand on the line between them.";
    return;
  }
  const range = (lines) => {
    const shares = lines.map((one) => one[place][0]);
    return `${percent(Math.min(...shares))} to ${percent(Math.max(...shares))}`;
  };
  const { knows, speaks, counts, language } = value;
  said.textContent =
    at === 0
      ? `Left alone: ${percent(knows.steered[place][0])} of answers right, ${percent(speaks.steered[place][0])} of words ${language}.`
      : `At this strength: ${percent(knows.steered[place][0])} of answers right (random neurons ${range(knows.controls)}), ${percent(speaks.steered[place][0])} of words ${language} (${range(speaks.controls)}).`;
  const alike = speaks.controls.filter((one) => one[place][0] <= speaks.steered[place][0]).length;
  if (at > 0 && speaks.steered[place][0] < 0.9 && alike)
    said.textContent += ` ${alike} of ${speaks.controls.length} random draws melt${alike === 1 ? "s" : ""} the language as much.`;
  said.title = `${counts.questions} test questions and ${counts.stories} stories; bands: 95 % intervals`;
}

function draw() {
  cursors = [];
  body.replaceChildren(
    panel("knows", "Knowledge: answers right"),
    panel("speaks", `Language: words that are ${value.language}`),
  );
  element.querySelector(".curves-key").textContent =
    `Thick: language neurons turned down, with its 95 % interval. Dashed: the same on random neurons, ${value.counts.controls} draws. ${value.counts.questions} test questions, ${value.counts.stories} stories begun with two words, all in ${value.language}.`;
  tell(at);
}

// Only while that steering is set, whatever its strength; in the prompt's language.
function choose() {
  const now = window.clasNow?.curves;
  if (!now) return; // while the page moves
  const found = all.find((one) => one.key === now);
  box.hidden = !found;
  if (!found || found === value) return;
  const before = value;
  value = found;
  draw();
  if (!before || before.code === found.code) return;
  window.clasSpoken = found.code;
  trigger("input");
}

let all = [];
function read() {
  all = JSON.parse(props.value);
  value = null;
  choose();
}

let at = 0;
document.addEventListener("clas-now", choose);
document.addEventListener("clas-strength", (event) => {
  at = event.detail;
  tell(at);
});
watch("value", read);
read();
