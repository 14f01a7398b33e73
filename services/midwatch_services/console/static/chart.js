// Draws what a run had cost by when, in the colours of the page. The same stands beside it in words.
(function () {
  "use strict";
  function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }
  function draw(place) {
    var told = JSON.parse(place.dataset.chart);
    var width = place.clientWidth - 16, height = place.clientHeight - 16;
    var axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
    place.textContent = "";
    new window.uPlot({
      width: width, height: height, legend: { show: false }, cursor: { show: false },
      scales: { x: { time: false }, y: { range: function (_, low, high) { return [0, high > 0 ? high * 1.1 : 1]; } } },
      axes: [
        Object.assign({ label: place.dataset.x }, axis),
        Object.assign({ label: place.dataset.y, size: 70, values: function (_, some) { return some.map(function (one) { return "$" + one; }); } }, axis)
      ],
      series: [{}, { stroke: colour("--link"), width: 2, paths: window.uPlot.paths.stepped({ align: 1 }), points: { show: told.seconds.length < 60, size: 6, fill: colour("--link") } }]
    }, [told.seconds, told.dollars], place);
  }
  function all() { document.querySelectorAll("[data-chart]").forEach(draw); }
  var waiting = null;
  window.addEventListener("resize", function () { clearTimeout(waiting); waiting = setTimeout(all, 150); });
  new MutationObserver(all).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
  all();
})();
