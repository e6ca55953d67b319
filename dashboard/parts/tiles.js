const SVG = "http://www.w3.org/2000/svg";

function tile() {
  const made = element("button", "tile");
  made.type = "button";
  for (const part of ["title", "figure", "change", "spark", "base"]) element("span", part, made);
  made.querySelector(".spark").appendChild(line());
  return made;
}

function line() {
  const made = document.createElementNS(SVG, "svg");
  made.setAttribute("viewBox", "0 0 100 30");
  made.setAttribute("preserveAspectRatio", "none");
  made.setAttribute("aria-hidden", "true");
  for (const className of ["area", "line"]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", className);
    made.appendChild(path);
  }
  return made;
}

// A bucket without a value is a gap, not a zero; one value between two gaps is a dot.
function paths(points) {
  const known = points.filter((value) => value !== null);
  const low = Math.min(...known);
  const span = Math.max(...known) - low || 1;
  const step = 100 / Math.max(1, points.length - 1);
  let stroke = "";
  let area = "";
  let run = [];
  const end = () => {
    if (run.length) {
      const ends = run.length > 1 ? run : [run[0], [run[0][0] + 0.01, run[0][1]]];
      const text = ends.map(([x, y]) => x.toFixed(2) + " " + y.toFixed(2)).join(" L ");
      stroke += "M " + text + " ";
      area += "M " + ends[0][0] + " 30 L " + text + " L " + ends[ends.length - 1][0] + " 30 Z ";
    }
    run = [];
  };
  points.forEach((value, place) => {
    if (value === null) end();
    else run.push([place * step, 27 - ((value - low) / span) * 24]);
  });
  end();
  return [area, stroke];
}

// The base line keeps to one line: it shrinks a little where a figure has many digits.
function fit(base) {
  base.style.fontSize = "";
  const letters = document.createRange();
  letters.selectNodeContents(base);
  // Exactly: scrollWidth is whole pixels, and a part of one too much already costs the last letters.
  const wide = () => letters.getBoundingClientRect().width > base.getBoundingClientRect().width;
  for (let size = 11.5; size >= 9 && wide(); size -= 0.5) base.style.fontSize = size + "px";
}

function passport(box) {
  const made = element("dialog", "passport", box);
  const head = element("div", "head", made);
  element("h2", "", head);
  const close = element("button", "close", head);
  close.type = "button";
  close.setAttribute("aria-label", "Close");
  say(close, "\u2715");
  close.onclick = () => made.close();
  element("p", "about", made);
  element("p", "quiet note", made);
  element("pre", "sql", made);
  const actions = element("div", "actions", made);
  const run = element("a", "action main", actions);
  say(run, "Open in SQL");
  run.onclick = (event) => {
    follow(event);
    if (event.defaultPrevented) made.close();
  };
  const copy = element("button", "action", actions);
  copy.type = "button";
  say(copy, "Copy the query");
  copy.onclick = async () => {
    await navigator.clipboard.writeText(made.querySelector(".sql").textContent);
    say(copy, "Copied");
    setTimeout(() => say(copy, "Copy the query"), 1500);
  };
  made.onclick = (event) => event.target === made && made.close();
  return made;
}

function describe(made, item) {
  made.dataset.name = item.name;
  say(made.querySelector("h2"), item.title);
  say(made.querySelector(".about"), item.about);
  say(made.querySelector(".note"), item.note);
  say(made.querySelector(".sql"), item.sql);
  attribute(made.querySelector("a"), "href", item.href);
}

export default function ({ data, parentElement }) {
  const box = root(parentElement, "div", "tiles");
  if (!box.firstChild) {
    element("div", "grid", box);
    passport(box);
  }
  const [grid, dialog] = box.children;
  fill(grid, data.tiles, tile, (made, item) => {
    const [title, figure, change, spark, base] = made.children;
    made.dataset.name = item.name;
    name(made, "tile " + (item.tone || "grey"));
    say(title, item.title);
    say(figure, item.figure);
    say(change, item.change || "\u00a0");
    change.style.visibility = item.change ? "" : "hidden";
    const [area, stroke] = paths(item.points);
    attribute(spark.querySelector(".area"), "d", area);
    attribute(spark.querySelector(".line"), "d", stroke);
    say(base, item.base);
    attribute(base, "title", item.base);
    attribute(made, "aria-label", [item.title, item.figure, item.change, item.base].filter(Boolean).join(", "));
    attribute(made, "aria-haspopup", "dialog");
    made.onclick = () => {
      describe(dialog, item);
      dialog.showModal();
    };
    if (dialog.open && dialog.dataset.name === item.name) describe(dialog, item);
    fit(base);
  });
  if (!box.watch) {
    box.watch = new ResizeObserver(() => grid.querySelectorAll(".base").forEach(fit));
    box.watch.observe(grid);
  }
}
