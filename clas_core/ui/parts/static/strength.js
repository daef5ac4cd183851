// A range input with labelled marks; gr.HTML gives element, props, trigger and watch.
const range = element.querySelector("input[type=range]");
const output = element.querySelector("output");
const scale = element.querySelector(".strength-scale");
const { low, high, step } = props;
range.min = low;
range.max = high;
range.step = step;

const share = (value) => (value - low) / (high - low);
const place = (value) => `calc(var(--thumb) / 2 + ${share(value)} * (100% - var(--thumb)))`;

function drawMarks() {
  scale.replaceChildren(
    ...props.marks.map((mark) => {
      const item = document.createElement("button");
      item.type = "button";
      // Two labels too close to stand side by side: the default's goes a line lower.
      const near = props.marks.some((m) => m !== mark && Math.abs(share(m.value) - share(mark.value)) < 0.17);
      item.className = `strength-mark ${mark.kind}${near && mark.kind === "default" ? " low" : ""}`;
      item.style.left = place(mark.value);
      item.textContent = mark.label;
      item.title = `${mark.title} (${mark.value})`;
      item.addEventListener("click", () => send(mark.value));
      return item;
    }),
  );
}

function show(value) {
  range.value = value; // the nearest step; what is said is the value itself
  const number = Number(value);
  const exact = Number(number.toFixed(2)) === number ? number.toFixed(2) : String(number);
  output.textContent = number === 0 ? "Off" : exact.replace("-", "\u2212");
  range.setAttribute("aria-valuetext", output.textContent);
  const zero = place(0);
  const here = place(number);
  element.style.setProperty("--fill-from", number < 0 ? here : zero);
  element.style.setProperty("--fill-to", number < 0 ? zero : here);
  element.dataset.side = number < 0 ? "minus" : "plus";
}

function send(value) {
  show(value);
  const number = Number(value);
  if (number === props.value) return;
  props.value = number;
  trigger("input");
}

range.addEventListener("input", () => send(range.value));
watch("value", () => show(props.value));
watch("marks", drawMarks);
drawMarks();
show(props.value);
