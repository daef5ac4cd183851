// Tells the stamps what is set now, and keeps it for a reload of this very address.
// value: {keys: {kind: key}, kept}, as now_value makes it
function settle() {
  window.clasNow = JSON.parse(props.value).keys;
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
  window.clasNow = null;
  document.dispatchEvent(new Event("clas-now"));
};
window.clasSettle = settle;
watch("value", () => {
  settle();
  keep();
});
settle(); // what an earlier visit kept is still to be read
