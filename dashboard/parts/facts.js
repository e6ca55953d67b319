function pair() {
  const made = element("div", "fact");
  element("dt", "quiet", made);
  element("dd", "", made);
  return made;
}

export default function ({ data, parentElement }) {
  fill(root(parentElement, "dl", "facts"), data.items, pair, (made, item) => {
    say(made.children[0], item.name);
    say(made.children[1], item.text);
    name(made.children[1], item.tone ? "tone " + item.tone : "");
    attribute(made, "title", item.hint);
  });
}
