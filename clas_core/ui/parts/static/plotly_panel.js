// Runs once when the panel is mounted; gr.HTML gives element, props, trigger and watch.
// value: {data, layout, description, start: [{trace, x, y}]} as JSON, as figure_value makes it
const plot = element.querySelector(".plotly-panel-plot");
const said = element.querySelector(".plotly-panel-said");
const replay = element.querySelector(".plotly-panel-replay");
const still = window.matchMedia("(prefers-reduced-motion: reduce)");
const CONFIG = {
  displaylogo: false,
  scrollZoom: "wheel" in element.querySelector(".plotly-panel").dataset,
  responsive: false, // the observer below does it, and only while the panel is visible
  showSendToCloud: false,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "toImage"],
};

const loadPlotly = () =>
  (window.clasPlotly ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = element.querySelector(".plotly-panel").dataset.library;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error("plotly.min.js could not be loaded"));
    document.head.append(script);
  }));

function themed(layout) {
  const style = getComputedStyle(element);
  const css = (name) => style.getPropertyValue(name).trim();
  const ink = css("--body-text-color");
  const soft = css("--body-text-color-subdued");
  const line = css("--border-color-primary");
  const paper = css("--clas-card");
  const axis = (given) => ({
    ...given,
    gridcolor: line,
    zerolinecolor: line,
    linecolor: line,
    tickfont: { color: soft, ...(given?.tickfont || {}) },
  });
  const themedLayout = {
    ...layout,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: style.fontFamily, size: 13, color: ink, ...(layout.font || {}) },
    hoverlabel: {
      bgcolor: paper,
      bordercolor: line,
      align: "left",
      font: { family: style.fontFamily, size: 14, color: ink },
    },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: ink, orientation: "h" },
    uirevision: layout.uirevision ?? "keep",
  };
  for (const name of Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key)))
    themedLayout[name] = axis(layout[name]);
  return themedLayout;
}

const positions = () => plot.data.map((trace) => ({ x: trace.x, y: trace.y }));
const moving = (value) => (value.start || []).map((item) => item.trace);
const shape = (data) => data.map((trace) => `${trace.name}:${trace.x?.length}`).join();

async function glide(Plotly, value, from) {
  const traces = moving(value);
  const before = value.data.map((trace, index) =>
    traces.includes(index) ? { ...trace, ...from[index] } : trace,
  );
  await Plotly.react(plot, before, themed(value.layout), CONFIG);
  const after = traces.map((index) => ({ x: value.data[index].x, y: value.data[index].y }));
  await Plotly.animate(
    plot,
    { data: after, traces },
    {
      mode: "immediate",
      transition: { duration: 800, easing: "cubic-in-out" },
      frame: { duration: 800, redraw: false },
    },
  ).catch(() => {}); // a newer value interrupts an older glide
  // Labels and still traces are drawn anew only here.
  await Plotly.redraw(plot);
}

let wanted = 0;
let busy = false;
let late = false; // a value came while the figure was hidden
const NARROW = 560; // below it, in pixels, numbers in tiles would lie on each other: hovers say them

function fitting(data) {
  if (plot.offsetWidth >= NARROW) return data;
  return data.map((trace) => (trace.type === "heatmap" ? { ...trace, texttemplate: "" } : trace));
}

async function draw() {
  wanted += 1;
  if (busy) return;
  busy = true;
  try {
    const Plotly = await loadPlotly();
    for (let done = -1; done !== wanted; ) {
      done = wanted;
      const value = props.value && JSON.parse(props.value);
      late = !plot.offsetWidth; // the observer draws it later
      if (!value?.data || late) continue;
      plot.setAttribute("aria-label", value.description || "Figure");
      if (replay) replay.hidden = !value.start?.length;
      const first = !plot.data;
      const starts = {};
      for (const item of value.start || []) starts[item.trace] = { x: item.x, y: item.y };
      if (value.start?.length && !still.matches) {
        const same = !first && shape(plot.data) === shape(value.data);
        const from = same ? positions() : starts;
        await glide(Plotly, value, from);
      } else {
        await Plotly.react(plot, fitting(value.data), themed(value.layout), CONFIG);
      }
      if (first)
        plot.on("plotly_click", (event) => {
          const point = event.points[0];
          trigger("select", {
            trace: point.curveNumber,
            x: point.x,
            y: point.y,
            key: point.customdata ?? null,
          });
        });
      plot.dataset.drawn = String(Number(plot.dataset.drawn || 0) + 1);
    }
  } catch (error) {
    plot.textContent = "The figure could not be drawn: reload the page.";
    console.error(error);
  } finally {
    busy = false;
  }
}

// The marks as rows [[trace, point], ...] to walk along: a language's, a method's, a line of tiles.
function rowsOfMarks() {
  return plot.data.flatMap((trace, number) => {
    if (trace.hoverinfo === "skip" || [false, "legendonly"].includes(trace.visible)) return [];
    if (trace.type !== "heatmap") return [Array.from(trace.x, (_, place) => [number, place])];
    const rows = trace.z.map((row, y) =>
      Array.from(row, (size, x) => (size === null ? null : [number, [y, x]])).filter(Boolean),
    );
    const [first, last] = plot._fullLayout.yaxis.range;
    return first > last ? rows : rows.reverse(); // as drawn, the top one first
  });
}

let mark = null; // {row, place} of the one that the keys are at
const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

function walk(rows, key) {
  const last = (list) => list.length - 1;
  if (!mark) return { row: 0, place: 0 };
  const [down, along] = MOVES[key] || [0, key === "Home" ? -Infinity : Infinity];
  const row = Math.min(Math.max(mark.row + down, 0), last(rows));
  return { row, place: Math.min(Math.max(mark.place + along, 0), last(rows[row])) };
}

// A tile in the words of its hover, which Plotly draws for a pointer alone.
function describeTile(number, place) {
  const trace = plot.data[number];
  if (trace.type !== "heatmap") return "";
  const [y, x] = place;
  const known = { x: trace.x?.[x] ?? x, y: trace.y?.[y] ?? y, z: trace.z[y][x] };
  for (const name of ["customdata", "text"]) known[name] = trace[name]?.[y]?.[x];
  const filled = (trace.hovertemplate || "").replace(/%\{(\w+)[^}]*\}/g, (_, name) => known[name] ?? "");
  return filled.replace(/<[^>]*>/g, " ").trim();
}

function chooseMark(number, place) {
  const trace = plot.data[number];
  const [y, x] = Array.isArray(place) ? place : [place, place];
  const tile = trace.type === "heatmap";
  trigger("select", {
    trace: number,
    x: trace.x?.[x] ?? x,
    y: trace.y?.[y] ?? y,
    key: (tile ? trace.customdata?.[y]?.[x] : trace.customdata?.[x]) ?? null,
  });
}

plot.addEventListener("keydown", (event) => {
  if (event.target !== plot || !plot.data || event.altKey || event.ctrlKey || event.metaKey) return;
  const rows = rowsOfMarks().filter((row) => row.length);
  const moves = event.key in MOVES || event.key === "Home" || event.key === "End";
  if (!rows.length || !(moves || (mark && ["Enter", " "].includes(event.key)))) return;
  event.preventDefault();
  if (moves) mark = walk(rows, event.key);
  const row = rows[Math.min(mark.row, rows.length - 1)];
  const [number, place] = row[Math.min(mark.place, row.length - 1)];
  if (!moves) return chooseMark(number, place);
  window.Plotly.Fx.hover(plot, [{ curveNumber: number, pointNumber: place }]);
  setTimeout(() => {
    // What the figure itself says of the mark, once it has drawn that.
    const lines = plot.querySelectorAll(".hoverlayer text");
    const words = Array.from(lines, (text) => {
      const parts = text.querySelectorAll("tspan.line");
      return parts.length ? Array.from(parts, (part) => part.textContent) : [text.textContent];
    });
    said.textContent = words.flat().filter(Boolean).join(", ") || describeTile(number, place);
  }, 120);
});
plot.addEventListener("blur", () => plot.data && window.Plotly.Fx.unhover(plot));

replay?.addEventListener("click", async () => {
  const Plotly = await loadPlotly();
  const value = JSON.parse(props.value);
  const starts = {};
  for (const item of value.start) starts[item.trace] = { x: item.x, y: item.y };
  await glide(Plotly, value, starts);
});

let width = 0;
new ResizeObserver(() => {
  if (plot.offsetWidth === width) return;
  width = plot.offsetWidth;
  if (!width) return;
  if (plot.data && !late) window.Plotly.Plots.resize(plot);
  else draw();
}).observe(plot);
let dark = document.body.classList.contains("dark");
new MutationObserver(() => {
  if (dark === document.body.classList.contains("dark")) return;
  dark = !dark;
  draw();
}).observe(document.body, { attributes: true, attributeFilter: ["class"] });
watch("value", draw);
draw();
