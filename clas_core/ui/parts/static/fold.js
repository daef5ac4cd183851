// Folds and unfolds what `props.target` selects; the style sheet says what that means.
const button = element.querySelector("button");
button.addEventListener("click", () => {
  const open = document.querySelector(props.target).classList.toggle("open");
  button.setAttribute("aria-expanded", String(open));
});
