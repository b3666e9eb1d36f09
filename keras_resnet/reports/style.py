"""How a report looks, and the little that its script adds."""

STYLE = """
:root { --c0: #0a58ca; --c1: #b34700; --star: #b3001b; --warn: #8a3b00; --soft: #8882; }
@media (prefers-color-scheme: dark) {
  :root { --c0: #8ab4f8; --c1: #ffb27a; --star: #ff8a9a; --warn: #ffb27a; } }
h2 { border-top: 1px solid var(--line); padding-top: 1rem; margin-top: 2rem; }
.warning { color: var(--warn); font-weight: 600; }
.tiles { display: flex; flex-wrap: wrap; gap: .75rem; list-style: none; padding: 0; }
.tiles li { background: var(--soft); border-radius: 6px; padding: .6rem .9rem; flex: 1 1 9rem; }
.tiles b { font-size: 1.5rem; }
dl { display: grid; gap: .15rem 1rem; }
dl div { display: grid; grid-template-columns: minmax(7rem, 12rem) 1fr; gap: 1rem; }
dt { color: var(--quiet); } dd { margin: 0; min-width: 0; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .2rem .6rem; text-align: left; vertical-align: top; font-weight: 400;
  border-bottom: 1px solid var(--line); overflow-wrap: normal; }
thead th { font-weight: 600; white-space: nowrap; }
td code { overflow-wrap: break-word; } th code { white-space: nowrap; }
.long .scroll { max-height: 24rem; overflow: auto; border: 1px solid var(--line); }
.settings td { max-width: 16rem; } .settings td:last-child { min-width: 16rem; max-width: none; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
  white-space: nowrap; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr));
  gap: 1rem; }
.chart { max-width: 34rem; } .chart h3 { margin: 0; font-size: 1rem; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: currentColor; font: 13px system-ui, sans-serif; }
svg .mid { text-anchor: middle; } svg .end { text-anchor: end; }
.grid { stroke: var(--line); stroke-width: .5; }
.mark { stroke: currentColor; stroke-width: 1; stroke-dasharray: 2 3; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
polyline.c0 { stroke: var(--c0); } circle.c0 { fill: var(--c0); }
polyline.c1 { stroke: var(--c1); stroke-dasharray: 7 2; } circle.c1 { fill: var(--c1); }
.star { fill: none; stroke: var(--star); stroke-width: 2; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; list-style: none; padding: 0; }
.key { display: inline-block; width: 1.6rem; border-top: 3px solid var(--c0); margin-right: .4rem;
  vertical-align: middle; }
.k1 { border-top: 3px dashed var(--c1); }
.matrix { font-variant-numeric: tabular-nums; }
.matrix td { padding: 0; text-align: center; min-width: 2rem; height: 2rem;
  vertical-align: middle; border: 1px solid var(--line); }
.matrix th { vertical-align: middle; max-width: 12rem; overflow-wrap: anywhere; }
.matrix thead th { vertical-align: bottom; padding: .2rem; }
.matrix thead span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 12rem;
  overflow: hidden; overflow-wrap: anywhere; }
.matrix a { display: block; padding: .35rem .2rem; color: inherit;
  text-decoration: underline dotted; }
.matrix a:focus-visible { outline-offset: -3px; outline-color: currentColor; }
.matrix a[aria-current] { box-shadow: inset 0 0 0 3px currentColor; }
.behind { display: none; scroll-margin-top: 40vh; border: 1px solid var(--line); border-radius: 6px;
  padding: .2rem .8rem .8rem; margin-top: 1rem; }
.behind:target { display: block; }
.thumbs { display: flex; flex-wrap: wrap; gap: .6rem; }
.thumbs figure { max-width: 96px; font-size: .8rem; }
.thumbs img { width: 96px; height: 96px; }
.thumbs .path { display: block; font-size: .7rem; }
@media (max-width: 40rem) { th, td { padding: .2rem .4rem; }
  dl div { grid-template-columns: 7rem 1fr; } .matrix td { min-width: 1.75rem; }
  .settings thead { display: none; } .settings tr { display: block; padding: .3rem 0;
    border-bottom: 1px solid var(--line); }
  .settings th, .settings td { display: inline; border: 0; padding: 0 .4rem 0 0; }
  .settings tbody th::after { content: " ="; }
  .settings td:nth-child(3):not(:last-child)::before { content: "instead of "; }
  .settings td:last-child { display: block; min-width: 0; color: var(--quiet); } }
summary { cursor: pointer; padding: .3rem 0; }
@media print {
  :root { color-scheme: light; --quiet: #444; }
  body { max-width: none; font-size: 11px; padding: 0; }
  nav, .back { display: none; }
  .behind.wrong { display: block; break-inside: avoid-page; }
  .scroll, .long .scroll { overflow: visible; max-height: none; }
  .matrix td, .heat { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .thumbs figure, .thumbs img { width: 64px; height: auto; max-width: 64px; }
  figure, tr, svg { break-inside: avoid; }
}
"""

# Arrow keys in the matrix, the chosen cell marked, Escape goes back to it. What it adds to is
# links, which work without it.
SCRIPT = """
(function () {
  "use strict";
  var table = document.getElementById("matrix"), last = null;
  var steps = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
  function links() { return Array.from(document.querySelectorAll("a[href^='#cell-']")); }
  function opened() { return document.querySelector(".behind:target"); }
  function mark() {
    var section = opened();
    links().forEach(function (link) {
      if (section && link.hash === "#" + section.id) {
        link.setAttribute("aria-current", "true");
        last = link;
      } else { link.removeAttribute("aria-current"); }
    });
    if (section) { section.focus({preventScroll: true}); }
  }
  function back(event) {
    if (!last || !opened()) { return; }
    event.preventDefault();
    var link = last;
    location.hash = "#confusion";
    link.focus();
  }
  window.addEventListener("hashchange", mark);
  document.addEventListener("keydown", function (event) {
    if (event.key === "Escape") { back(event); return; }
    var step = steps[event.key];
    var cell = event.target.closest && event.target.closest("#matrix td");
    if (!step || !cell) { return; }
    event.preventDefault();
    var row = cell.parentNode.rowIndex, column = cell.cellIndex;
    for (;;) {
      row += step[0]; column += step[1];
      var next = table.rows[row] && row > 0 && column > 0 && table.rows[row].cells[column];
      if (!next) { return; }
      var link = next.querySelector("a");
      if (link) { link.focus(); return; }
    }
  });
  document.querySelectorAll(".back").forEach(function (link) {
    link.addEventListener("click", back);
  });
  window.addEventListener("load", mark);
})();
"""
