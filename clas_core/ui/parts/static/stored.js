// Holds the answers that need no run, by the key of what they are for; and lets the strength sweep
// once over the first of them, until anyone touches anything, and again where it is asked for.
// value: {cells: {key: {alpha, of, view, words}}, sweep} as JSON, as stored_value makes it
const UP = 750; // milliseconds a step
const HOLD = 3000;
const DOWN = 400;
const TOUCHES = ["pointerdown", "keydown", "wheel", "touchstart"];

function publish() {
  const value = props.value && JSON.parse(props.value);
  window.clasStored = value?.cells || {};
  document.dispatchEvent(new Event("clas-stored"));
  return value;
}

const again = element.querySelector(".sweep-again");
function offer() {
  const sweeping = "sweep" in document.documentElement.dataset;
  again.hidden = sweeping || !wanted || !window.clasStored[window.clasNow?.steer];
}

let stop = () => {};
function sweep(to) {
  const all = Object.values(window.clasStored);
  const { of, alpha: before } = window.clasStored[window.clasNow.steer];
  const steps = [...new Set(all.filter((cell) => cell.of === of).map((cell) => cell.alpha))]
    .filter((alpha) => alpha >= 0 && alpha <= to)
    .sort((a, b) => a - b);
  const path = [
    ...steps.map((alpha) => [alpha, alpha === to ? HOLD : UP]),
    ...steps.slice(0, -1).reverse().map((alpha) => [alpha, DOWN]),
  ];
  let timer = 0;
  const end = () => {
    clearTimeout(timer);
    TOUCHES.forEach((name) => removeEventListener(name, touched, true));
    delete document.documentElement.dataset.sweep;
    offer();
  };
  const touched = () => {
    end();
    window.clasStrength.commit(); // it stays where it is
  };
  const next = () => {
    if (!path.length || document.hidden) {
      end();
      if (before !== 0) window.clasStrength.commit(); // it stood elsewhere than at Off
      return;
    }
    const [alpha, wait] = path.shift();
    window.clasStrength.preview(alpha);
    timer = setTimeout(next, wait);
  };
  TOUCHES.forEach((name) => addEventListener(name, touched, { capture: true, passive: true }));
  document.documentElement.dataset.sweep = "";
  offer();
  stop = end;
  next();
}

const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
let wanted = publish()?.sweep || 0; // how far to go, once
let over = still || Boolean(location.search || location.hash);
let touchedBefore = false;
watch("value", () => {
  stop();
  wanted = publish()?.sweep || 0;
  offer();
});
for (const name of ["clas-now", "clas-opened"]) document.addEventListener(name, offer);
again.addEventListener("click", () => sweep(wanted));
const note = () => {
  over = touchedBefore = true;
};
TOUCHES.forEach((name) => addEventListener(name, note, { capture: true, once: true }));
function begin(tries) {
  if (over || tries > 60) return;
  // Once the page stands: what is set is known, and is one of these answers.
  const here = window.clasStored[window.clasNow?.steer];
  if (wanted && here?.alpha === 0 && window.clasOpened && window.clasStrength) {
    over = true;
    setTimeout(() => touchedBefore || sweep(wanted), 900);
    return;
  }
  setTimeout(() => begin(tries + 1), 250);
}
if (!over) begin(0);
offer();
