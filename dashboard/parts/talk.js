const SHOWN_FIRST = 200;

function turn() {
  const made = element("div", "turn");
  element("div", "quiet who", made);
  element("div", "said", made);
  return made;
}

export default function ({ data, parentElement }) {
  const box = root(parentElement, "div", "talk");
  if (!box.firstChild) {
    element("div", "turns", box);
    const button = element("button", "more", box);
    button.type = "button";
    button.onclick = () => {
      box.all = true;
      box.draw();
    };
  }
  const [turns, more] = box.children;
  box.draw = () => {
    const shown = box.all ? data.turns : data.turns.slice(0, SHOWN_FIRST);
    fill(turns, shown, turn, (made, item) => {
      name(made, "turn " + (item.who || "unknown"));
      say(made.children[0], item.who === "agent" ? "Agent" : item.who === "caller" ? "Caller" : "");
      say(made.children[1], item.said);
    });
    more.hidden = shown.length === data.turns.length;
    say(more, "Show the other " + (data.turns.length - shown.length) + " turns");
  };
  box.draw();
}
