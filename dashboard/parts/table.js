function cell() {
  const made = element("td");
  const both = element("div", "both", made);
  element("bdi", "text", both);
  element("div", "quiet below", both);
  return made;
}

function update(made, content, column) {
  if (content.at) made.dataset.at = content.at;
  else delete made.dataset.at;
  const [text, below] = made.children[0].children;
  say(text, content.at ? ago(content.at) : content.text || "");
  name(text, content.tone ? "text tone " + content.tone : "text");
  say(below, content.below || "");
  below.hidden = !content.below;
  name(made, kind(column));
  attribute(made, "title", content.hint);
}

function kind(column) {
  return [column.number && "number", column.narrow && "narrow", column.wrap && "wrap"].filter(Boolean).join(" ");
}

function opens(row, item) {
  // The link spans the row, so that all of it opens, by mouse, touch and keyboard, and in another tab, too.
  const first = row.children[0];
  let link = first.querySelector("a");
  if (!item.href) {
    if (link) link.remove();
    return;
  }
  if (!link) {
    link = element("a", "opens", first);
    link.onclick = follow;
  }
  attribute(link, "href", item.href);
  attribute(link, "aria-label", "Open " + item.cells.map((content) => content.text).filter(Boolean).join(", "));
}

function newRow(id, fresh) {
  const row = element("tr");
  row.dataset.id = id;
  if (fresh) {
    row.className = "fresh";
    setTimeout(() => row.classList.remove("fresh"), 2000);
  }
  return row;
}

// A row that is moved loses the focus: the one that has it stays, and of the others as many as the order allows.
function arrange(body, rows) {
  const listed = new Set(rows);
  [...body.rows].filter((row) => !listed.has(row)).forEach((row) => row.remove());
  const held = [...body.rows].find((row) => row.contains(body.getRootNode().activeElement));
  rows.forEach((row, place) => {
    // What stands in the way of the held row, or of a row that is next, goes out and comes in again further down.
    const inTheWay = (other) => other && other !== row && other !== held && (row === held || other.nextSibling === row);
    while (inTheWay(body.rows[place])) body.rows[place].remove();
    if (body.rows[place] !== row) body.insertBefore(row, body.rows[place] || null);
  });
}

export default function ({ data, parentElement }) {
  const box = root(parentElement, "div", "scroll");
  if (!box.firstChild) {
    const table = element("table", "", box);
    element("tr", "", element("thead", "", table));
    element("tbody", "", table);
  }
  const table = box.firstChild;
  attribute(table, "aria-label", data.label);
  fill(table.tHead.rows[0], data.columns, () => element("th"), (made, column) => {
    say(made, column.title);
    name(made, kind(column));
    attribute(made, "scope", "col");
  });

  const body = table.tBodies[0];
  const there = new Map([...body.rows].map((row) => [row.dataset.id, row]));
  const mark = data.mark && box.mark === data.mark && there.size > 0;
  const rows = data.rows.map((item) => there.get(item.id) || newRow(item.id, mark));
  arrange(body, rows);
  data.rows.forEach((item, place) => {
    fill(rows[place], item.cells, cell, (made, content, column) => update(made, content, data.columns[column]));
    opens(rows[place], item);
  });
  box.mark = data.mark;
  box.timer ||= setInterval(() => {
    if (!box.isConnected) box.timer = clearInterval(box.timer);
    body.querySelectorAll("td[data-at]").forEach((made) => say(made.querySelector(".text"), ago(Number(made.dataset.at))));
  }, 5000);
}
