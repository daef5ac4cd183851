// Tells the stamps what is set now, keeps it for a reload of this very address, and has the answer
// made anew once nothing has moved for a moment.
// value: {keys: {kind: key}, kept}, as now_value makes it
const WAIT = 300; // milliseconds after the last move,
const TYPING = 1000; // or the last letter

function settle() {
  const keys = JSON.parse(props.value).keys;
  // An answer to an earlier place of a slider that is dragged on: the right one is to come.
  if (window.clasAim && keys.steer !== window.clasAim && keys.steer in (window.clasStored || {})) return;
  window.clasAim = null;
  window.clasNow = keys;
  document.dispatchEvent(new Event("clas-now"));
}

function keep() {
  const value = JSON.parse(props.value);
  if (!value.kept) return;
  try {
    sessionStorage.setItem("clas", JSON.stringify({ link: location.search, ...value.kept }));
  } catch {
    // no storage here: a reload opens as new
  }
}

// While the server is asked, nothing is known to be for what is set now.
window.clasMoved = () => {
  if (window.clasAim) return;
  window.clasNow = null;
  document.dispatchEvent(new Event("clas-now"));
};
window.clasAnswered = () => setTimeout(() => window.clasNow || settle(), 50);
window.clasSettle = () => {
  window.clasAim = null;
  settle();
};
watch("value", () => {
  settle();
  keep();
});

let timer = 0;
let asked = ""; // the key that was last run for
const tab = () => document.getElementById("steer-tab-button");
function rerun() {
  clearTimeout(timer);
  const key = window.clasNow?.steer;
  const open = tab()?.getAttribute("aria-selected") === "true";
  if (!key || key === "?" || !window.clasOpened || !open) return;
  if (key === window.clasShown || key === asked || key in (window.clasStored || {})) return;
  const typing = document.activeElement?.matches("#prompt textarea");
  timer = setTimeout(() => {
    asked = key;
    document.getElementById("again")?.click();
  }, typing ? TYPING : WAIT);
}
document.addEventListener("clas-now", () => {
  if (window.clasNow && window.clasNow.steer !== asked) asked = "";
  rerun();
});
document.addEventListener("clas-opened", rerun);
document.addEventListener("click", (event) => {
  if (event.target.closest?.("[role=tab]")) setTimeout(rerun, 100);
});
settle(); // what an earlier visit kept is still to be read
