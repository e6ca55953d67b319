function unfolding() {
  const made = element("details", "");
  element("summary", "", made);
  element("dl", "columns", made);
  return made;
}

function column() {
  const made = element("div", "column");
  const term = element("dt", "", made);
  element("code", "", term);
  element("span", "quiet", term);
  element("dd", "quiet", made);
  return made;
}

export default function ({ data, parentElement }) {
  fill(root(parentElement, "div", "schema"), data.tables, unfolding, (made, table) => {
    say(made.children[0], table.name);
    fill(made.children[1], table.columns, column, (line, [field, type, comment]) => {
      say(line.children[0].children[0], field);
      say(line.children[0].children[1], type.toLowerCase());
      say(line.children[1], comment || "");
    });
  });
}
