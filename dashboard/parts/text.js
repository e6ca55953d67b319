export default function ({ data, parentElement }) {
  say(root(parentElement, "div", "words"), data.text);
}
