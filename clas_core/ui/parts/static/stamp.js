// Says what a kind of result is for, and lets the style sheet dim it while something else is set.
// value: {keys, words, unfinished} as JSON, as stamp_value makes it
const line = element.querySelector(".stamp");
const [words, otherwise] = line.children;
const kind = line.dataset.kind;

function draw() {
  const value = props.value && JSON.parse(props.value);
  if (!value) {
    line.hidden = true;
    document.documentElement.removeAttribute(`data-dim-${kind}`);
    return;
  }
  const current = Boolean(window.clasNow && value.keys.includes(window.clasNow[kind]));
  words.textContent = value.words;
  otherwise.hidden = current;
  line.hidden = current && !value.words;
  line.dataset.current = String(current);
  document.documentElement.toggleAttribute(`data-dim-${kind}`, !current || value.unfinished);
}

document.addEventListener("clas-now", draw);
watch("value", draw);
draw();
