// Says what a kind of result is for, and lets the style sheet dim it while something else is set.
// value: {keys, words, unfinished} as JSON, as stamp_value makes it
const line = element.querySelector(".stamp");
const [words, otherwise] = line.children;
const kind = line.dataset.kind;

function draw() {
  const value = props.value && JSON.parse(props.value);
  const stored = kind === "steer" && window.clasStored?.[window.clasNow?.steer];
  if (!value && !stored) {
    line.hidden = true;
    document.documentElement.removeAttribute(`data-dim-${kind}`);
    return;
  }
  const mine = Boolean(value && window.clasNow && value.keys.includes(window.clasNow[kind]));
  const current = mine || Boolean(stored);
  words.textContent = !mine && stored ? stored.words : value ? value.words : "";
  otherwise.hidden = current;
  line.hidden = current && !words.textContent;
  line.dataset.current = String(current);
  const unfinished = mine && value.unfinished;
  document.documentElement.toggleAttribute(`data-dim-${kind}`, !current || unfinished);
}

document.addEventListener("clas-now", draw);
document.addEventListener("clas-stored", draw);
watch("value", draw);
draw();
