// What the keyboard does beyond what a browser and Gradio do by themselves.
const shown = (node) => node.isConnected && node.offsetParent !== null;

// A row of choices is one stop, and arrows go along it: Gradio names every radio of it differently.
const names = new WeakMap();
let rows = 0;
function joinRadios() {
  for (const row of document.querySelectorAll("fieldset")) {
    if (!names.has(row)) names.set(row, `row-${(rows += 1)}`);
    for (const radio of row.querySelectorAll("input[type=radio]"))
      if (radio.name !== names.get(row)) radio.name = names.get(row);
  }
}

// So are the tabs.
const STEPS = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
function joinTabs() {
  for (const tab of document.querySelectorAll("[role=tablist] [role=tab]"))
    tab.tabIndex = tab.getAttribute("aria-selected") === "true" ? 0 : -1;
}
function moveTab(event) {
  const tab = event.target.closest?.("[role=tab]");
  if (!tab || !(event.key in STEPS) || event.altKey || event.ctrlKey || event.metaKey) return;
  const tabs = [...tab.parentElement.querySelectorAll("[role=tab]")].filter(shown);
  const step = STEPS[event.key];
  const to = Number.isFinite(step)
    ? tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length]
    : tabs.at(step < 0 ? 0 : -1);
  event.preventDefault();
  to.click();
  to.focus();
}

function generate(event) {
  const here = event.key === "Enter" && (event.ctrlKey || event.metaKey);
  if (!here || !event.target.closest?.("#steer-tab")) return;
  const button = document.getElementById("generate");
  if (!button || !shown(button)) return;
  event.preventDefault();
  button.click();
}

// A button that goes when it is pressed hands the focus on to the one that comes in its place.
let held = null; // {button, row}
document.addEventListener("focusin", ({ target }) => {
  held = target.matches("button") ? { button: target, row: target.parentElement } : null;
});
document.addEventListener("focusout", ({ target, relatedTarget }) => {
  requestAnimationFrame(() => {
    if (!relatedTarget && held?.button === target && shown(target)) held = null; // left, not gone
  });
});
function handOn() {
  if (!held || shown(held.button) || document.activeElement !== document.body) return;
  const next = [...held.row.querySelectorAll("button.primary, button.stop")].find(shown);
  next?.focus({ preventScroll: true });
}

let due = 0;
new MutationObserver(() => {
  cancelAnimationFrame(due);
  due = requestAnimationFrame(() => {
    joinRadios();
    joinTabs();
    handOn();
  });
}).observe(document.body, {
  subtree: true,
  childList: true,
  attributes: true,
  attributeFilter: ["aria-selected", "class", "style"],
});
document.addEventListener("keydown", moveTab);
document.addEventListener("keydown", generate);
joinRadios();
joinTabs();
