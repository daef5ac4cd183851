// A range input with labelled marks; gr.HTML gives element, props, trigger and watch.
// `zones`: {steps, key}, words from a strength on, and what they are of; `coarse`: the step in Explore.
const range = element.querySelector("input[type=range]");
const output = element.querySelector("output");
const scale = element.querySelector(".strength-scale");
const { low, high } = props;
range.min = low;
range.max = high;

const share = (value) => (value - low) / (high - low);
const place = (value) => `calc(var(--thumb) / 2 + ${share(value)} * (100% - var(--thumb)))`;
const inLab = () => document.documentElement.dataset.mode === "lab";

// What is known of one steering says nothing of others.
let mine = true;
function zonesNow() {
  const now = window.clasNow?.curves;
  if (now !== undefined) mine = now === props.zones?.key;
  return mine ? props.zones : null;
}

// At 0 a steering that acts before this one goes on, and the model isn't as it is.
const acts = () => Boolean(document.querySelector("#first :is(textarea, input)")?.value);

function drawMarks() {
  const measured = ["melts", "alike", "breaks", "best"];
  const marks = props.marks.filter((mark) => mine || !measured.includes(mark.kind));
  // Of two too close, these go a line lower; what is seen first only beside "Off".
  const LOWER = { default: 0.3, breaks: 0.3, best: 0.3, melts: 0.15, alike: 0.2 };
  const seen = ["melts", "alike"];
  const isNear = (mark, other) =>
    Math.abs(share(other.value) - share(mark.value)) < (LOWER[mark.kind] || 0) &&
    (other.kind === "off" || !seen.includes(mark.kind));
  scale.replaceChildren(
    ...marks.map((mark) => {
      const item = document.createElement("button");
      item.type = "button";
      const near = marks.some((other) => other !== mark && isNear(mark, other));
      item.className = `strength-mark ${mark.kind}${near ? " low" : ""}`;
      item.style.left = place(mark.value);
      const first = mark.kind === "off" && acts();
      item.textContent = first ? "first" : mark.label;
      item.title = `${first ? "Only what acts before this" : mark.title} (${mark.value})`;
      item.addEventListener("click", () => send(mark.value));
      return item;
    }),
  );
}

function wordFor(number) {
  if (number === 0) return acts() ? "First only" : "Off";
  const zones = zonesNow();
  if (!zones) return "";
  if (number < 0) return "Other way";
  return zones.steps.findLast(([from]) => number >= from - 1e-9)?.[1] || "Subtle";
}

function show(value) {
  range.step = props.coarse && !inLab() ? props.coarse : props.step;
  range.value = value; // the nearest step; what is said is the value itself
  const number = Number(value);
  const exact = Number(number.toFixed(2)) === number ? number.toFixed(2) : String(number);
  const word = wordFor(number);
  const said = number === 0 ? [] : [exact.replace("-", "\u2212")];
  const parts = [...(word ? [["b", word]] : []), ...said.map((text) => [word ? "small" : "b", text])];
  output.replaceChildren(
    ...parts.flatMap(([tag, text], index) => {
      const node = document.createElement(tag);
      node.textContent = text;
      return index ? [" ", node] : [node];
    }),
  );
  range.setAttribute("aria-valuetext", parts.map(([, text]) => text).join(", "));
  const zero = place(0);
  const here = place(number);
  element.style.setProperty("--fill-from", number < 0 ? here : zero);
  element.style.setProperty("--fill-to", number < 0 ? zero : here);
  element.dataset.side = number < 0 ? "minus" : "plus";
  shown = number;
  document.dispatchEvent(new CustomEvent("clas-strength", { detail: number }));
}
let shown = props.value;
let state = ""; // what words and marks were drawn for

// Where only the strength moves among stored answers, the page knows at once what it shows.
function aim(number) {
  const cells = window.clasStored || {};
  const here = cells[window.clasNow?.steer];
  if (!here) return false;
  const key = Object.keys(cells).find(
    (one) => cells[one].of === here.of && Math.abs(cells[one].alpha - number) < 1e-6,
  );
  if (!key) return false;
  window.clasNow = { steer: key };
  document.dispatchEvent(new Event("clas-now"));
  return key;
}

function send(value) {
  show(value);
  const number = Number(value);
  if (number === props.value) {
    aim(number);
    return;
  }
  window.clasAim = aim(number) || null;
  props.value = number;
  trigger("input");
}

window.clasStrength = {
  preview(number) {
    show(number);
    aim(number);
  },
  commit: () => send(shown),
};
range.addEventListener("input", () => send(range.value));
document.addEventListener("clas-now", () => {
  const before = state;
  zonesNow();
  state = `${mine} ${acts()}`;
  if (state === before) return;
  drawMarks();
  show(shown);
});
document.addEventListener("clas-mode", () => show(shown));
watch("value", () => show(props.value));
watch("marks", () => {
  drawMarks();
  show(props.value);
});
drawMarks();
show(props.value);
