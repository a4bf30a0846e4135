// What every part of the page uses. The parts are joined into one script, in the order of bundle.py.
const content = JSON.parse(document.getElementById("content").textContent);
const root = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");
const charts = new Map();
// Okabe and Ito, "Color Universal Design", 2008, without black; yellow last, it is faint on white.
const HUES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#b5a900"];
const MARKS = ["circle", "rect", "triangle", "rectRot", "star", "crossRot", "rectRounded", "cross"];

const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const one = (selector, within = document) => within.querySelector(selector);
const paint = (name) => getComputedStyle(root).getPropertyValue(name).trim();

function made(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function fill(select, labels, chosen = 0) {
  select.replaceChildren(...labels.map((label, i) => made("option", { value: i }, label)));
  select.selectedIndex = Math.min(chosen, labels.length - 1);
}

function digits(value) {
  if (value === null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  return size >= 1e7 || (size > 0 && size < 1e-3) ? value.toExponential(1) : String(Number(value.toPrecision(4)));
}

// Colours and marks of a series: a method keeps its own everywhere on the page.
function look(label) {
  if (label === content.measured) return { color: paint("--text"), mark: "circle", width: 3, dash: [] };
  if (label === content.given) return { color: paint("--quiet"), mark: "line", width: 2, dash: [2, 3] };
  const i = content.methods.indexOf(label);
  const turn = Math.floor(i / HUES.length);
  return { color: HUES[i % HUES.length], mark: MARKS[i % MARKS.length], width: 2, dash: turn ? [9, 2 * turn] : [] };
}

function theme() {
  const button = document.getElementById("theme");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const say = () => { button.textContent = dark() ? "Light colours" : "Dark colours"; };
  const set = (name) => {
    if (name) root.dataset.theme = name;
    else delete root.dataset.theme;
    say();
    redraw();
  };
  button.addEventListener("click", () => set(dark() ? "light" : "dark"));
  system.addEventListener("change", () => { if (!root.dataset.theme) set(null); });
  let kept = null;
  addEventListener("beforeprint", () => { kept = root.dataset.theme ?? ""; set("light"); });
  addEventListener("afterprint", () => { if (kept !== null) set(kept || null); });
  button.hidden = false;
  say();
}
