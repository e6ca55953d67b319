function cell() {
  const made = element("td");
  element("bdi", "text", made);
  element("div", "quiet below", made);
  return made;
}

function update(made, content, column) {
  if (content.at) made.dataset.at = content.at;
  else delete made.dataset.at;
  say(made.children[0], content.at ? ago(content.at) : content.text || "");
  name(made.children[0], content.tone ? "text tone " + content.tone : "text");
  say(made.children[1], content.below || "");
  made.children[1].hidden = !content.below;
  name(made, kind(column));
  attribute(made, "title", content.hint);
}

function kind(column) {
  return [column.number && "number", column.narrow && "narrow", column.wrap && "wrap"].filter(Boolean).join(" ");
}

function opens(row, item, open) {
  // The link spans the row, so that all of it opens, by mouse, touch and keyboard, and in another tab, too.
  const first = row.children[0];
  let link = first.querySelector("a");
  if (!item.href) {
    if (link) link.remove();
    return;
  }
  if (!link) {
    link = element("a", "opens", first);
    link.onclick = (event) => {
      if (!followed(event)) return;
      event.preventDefault();
      open(row.dataset.id);
    };
  }
  attribute(link, "href", item.href);
  attribute(link, "aria-label", "Open " + item.cells.map((content) => content.text).filter(Boolean).join(", "));
}

export default function ({ data, parentElement, setTriggerValue }) {
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
  data.rows.forEach((item, place) => {
    let row = there.get(item.id);
    if (row) there.delete(item.id);
    else {
      row = element("tr");
      row.dataset.id = item.id;
      if (mark) {
        row.className = "fresh";
        setTimeout(() => row.classList.remove("fresh"), 2000);
      }
    }
    // Moving a row that stands right would take the focus from it.
    if (body.rows[place] !== row) body.insertBefore(row, body.rows[place] || null);
    fill(row, item.cells, cell, (made, content, column) => update(made, content, data.columns[column]));
    opens(row, item, (id) => setTriggerValue("open", id));
  });
  there.forEach((row) => row.remove());
  box.mark = data.mark;
  box.timer ||= setInterval(() => {
    if (!box.isConnected) box.timer = clearInterval(box.timer);
    body.querySelectorAll("td[data-at]").forEach((made) => say(made.children[0], ago(Number(made.dataset.at))));
  }, 5000);
}
