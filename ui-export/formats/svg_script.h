// The script inside exported SVG. Kept small and apart from the drawing; everything it changes was
// drawn completely without it.
#pragma once

#include <string_view>

namespace pyrometer::formats {

// Boxes are <g class="f"> with a <title>, a <rect> and perhaps a <text>; #frames holds them.
inline constexpr std::string_view kSvgScript = R"js(
(function () {
  "use strict";
  var svg = document.documentElement, frames = document.getElementById("frames");
  var status = document.getElementById("status"), reset = document.getElementById("reset");
  var find = document.getElementById("find");
  var left = +frames.getAttribute("data-left"), full = +frames.getAttribute("data-width");
  var charWidth = +frames.getAttribute("data-char");
  var ns = "http://www.w3.org/2000/svg";
  var boxes = Array.prototype.map.call(frames.querySelectorAll("g.f"), function (g) {
    var rect = g.querySelector("rect"), title = g.querySelector("title").textContent;
    return { g: g, rect: rect, text: g.querySelector("text"), title: title, name: title.split("\n")[0],
             x: +rect.getAttribute("x"), w: +(rect.getAttribute("data-w") || rect.getAttribute("width")), y: +rect.getAttribute("y") };
  });
  find.removeAttribute("display");
  function place(b, x, w) {
    b.rect.setAttribute("x", x.toFixed(2));
    b.rect.setAttribute("width", (w > 1.5 ? w - 0.5 : w).toFixed(2));
    var room = Math.floor((w - 6) / charWidth);
    var words = room >= b.name.length ? b.name : room >= 3 ? b.name.slice(0, room - 1) + "\u2026" : "";
    if (words && !b.text) {
      b.text = document.createElementNS(ns, "text");
      b.text.setAttribute("y", b.y + 12.5);
      b.g.appendChild(b.text);
    }
    if (b.text) {
      b.text.setAttribute("x", (x + 4).toFixed(2));
      b.text.textContent = words;
    }
  }
  function zoom(to) {
    var scale = full / to.w, end = to.x + to.w, slack = 0.01;
    boxes.forEach(function (b) {
      var covers = b.y <= to.y && b.x <= to.x + slack && b.x + b.w >= end - slack;
      var below = b.y > to.y && b.x >= to.x - slack && b.x + b.w <= end + slack;
      b.g.setAttribute("display", covers || below ? "inline" : "none");
      b.rect.style.opacity = covers && b !== to ? 0.55 : 1;
      if (covers) place(b, left, full);
      else if (below) place(b, left + (b.x - to.x) * scale, b.w * scale);
    });
    if (to === boxes[0]) reset.setAttribute("display", "none");
    else reset.removeAttribute("display");
  }
  function search(pattern) {
    var expression = null, hits = [], shown = 0, end = -1;
    try { expression = pattern ? new RegExp(pattern, "i") : null; } catch (error) { status.textContent = "not a regular expression"; return; }
    boxes.forEach(function (b) {
      var hit = expression !== null && expression.test(b.name);
      b.rect.style.fill = hit ? "#b65cf0" : "";
      if (hit) hits.push(b);
    });
    hits.sort(function (a, b) { return a.x - b.x || b.w - a.w; });
    hits.forEach(function (b) { if (b.x >= end - 0.01) { shown += b.w; end = b.x + b.w; } });
    status.textContent = expression ? "matches: " + (100 * shown / full).toFixed(1) + " % of all" : "";
  }
  function ask() {
    var pattern = prompt("Search functions (regular expression), empty to clear:", "");
    if (pattern !== null) search(pattern);
  }
  frames.addEventListener("click", function (event) {
    var g = event.target.closest("g.f");
    for (var i = 0; g && i < boxes.length; i++) if (boxes[i].g === g) zoom(boxes[i]);
  });
  reset.addEventListener("click", function () { zoom(boxes[0]); });
  find.addEventListener("click", ask);
  svg.addEventListener("keydown", function (event) {
    if ((event.ctrlKey || event.metaKey) && event.key === "f") { event.preventDefault(); ask(); }
    if (event.key === "Escape") { zoom(boxes[0]); search(""); }
  });
})();
)js";

}  // namespace pyrometer::formats
