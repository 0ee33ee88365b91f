"use strict";
// What both readers think of the token under the pointer or the focus. Text enters the page as
// textContent only, so no text of a model can become markup.
const data = JSON.parse(document.getElementById("data").textContent);
const panel = document.getElementById("panel"), what = document.getElementById("what");
// isolated, whatever its direction
const quoted = word => "\u201c\u2068" + data.words[word] + "\u2069\u201d";
const percent = p => (p < .001 ? "under 0.1" : (100 * p).toFixed(p < .1 ? 1 : 0)) + " %";
let shown = null;

function show(token) {
  const chain = token.closest("[data-chain]");
  const [word, author, logp, rather] = data.chains[chain.dataset.chain][token.dataset.n];
  const difference = (logp[0] - logp[1]).toFixed(2).replace("-", "\u2212");
  what.textContent = quoted(word) + " was written by the " + data.authors[author] +
    "; log " + data.readers[0] + " \u2212 log " + data.readers[1] + " = " + difference;
  panel.querySelectorAll("tbody tr").forEach((row, i) => {
    const [name, probability, surprise, favourites] = row.children, p = Math.exp(logp[i]);
    name.textContent = data.readers[i];
    probability.textContent = percent(p);
    row.style.setProperty("--p", 100 * p + "%");
    surprise.textContent = Math.abs(logp[i]).toFixed(2) + " nats";
    favourites.textContent = rather[i].map(([w, p]) => quoted(w) + " " + percent(p)).join(",  ");
  });
  shown?.classList.remove("on");
  token.classList.add("on");
  shown = token;
  panel.hidden = false;
}

function close() {
  shown?.classList.remove("on");
  panel.hidden = true;
}

// one stop of the Tab key for each episode; the arrow keys go from token to token
function go(token, key) {
  const tokens = [...token.closest(".cell").querySelectorAll("[data-n]")];
  const at = tokens.indexOf(token), box = x => x.getClientRects()[0];
  const {top, bottom, left} = box(token);
  const near = (a, b) => Math.abs(box(a).left - left) - Math.abs(box(b).left - left);
  const line = others => {  // the token of the next line that is nearest
    if (!others.length) return token;
    const {top, bottom} = box(others[0]);
    return others.filter(x => box(x).top < bottom && box(x).bottom > top).sort(near)[0];
  };
  const goal = {
    ArrowRight: () => tokens[at + 1], ArrowLeft: () => tokens[at - 1],
    Home: () => tokens[0], End: () => tokens.at(-1),
    ArrowDown: () => line(tokens.slice(at).filter(x => box(x).top >= bottom - 1)),
    ArrowUp: () => line(tokens.slice(0, at).reverse().filter(x => box(x).bottom <= top + 1)),
  }[key];
  if (!goal) return false;
  focus(goal() || token);
  return true;
}

function focus(token) {
  token.closest(".cell").querySelectorAll("[data-n]").forEach(x => { x.tabIndex = -1; });
  token.tabIndex = 0;
  token.focus();
}

const token = event => event.target.closest?.("[data-n]");
document.addEventListener("pointerover", event => { if (token(event)) show(token(event)); });
document.addEventListener("focusin", event => { if (token(event)) show(token(event)); });
document.addEventListener("click", event => { if (token(event)) focus(token(event)); });
document.addEventListener("keydown", event => {
  if (event.key === "Escape") close();
  else if (!event.altKey && !event.ctrlKey && !event.metaKey && token(event)
           && go(token(event), event.key)) event.preventDefault();
});
document.getElementById("close").addEventListener("click", close);
