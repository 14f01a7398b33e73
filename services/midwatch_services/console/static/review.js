// Judging: reasons by number, the clock of reading, and holding the run while somebody looks at it.
(function () {
  "use strict";
  var form = document.querySelector("form.judging");
  if (!form) return;
  var reasons = form.querySelector("#reasons");
  var boxes = reasons.querySelectorAll("input[type=checkbox]");

  // Reasons are chosen once a fail is meant: until then their keys do nothing. The same key again, or Esc, means no fail.
  var buttons = form.querySelectorAll("[data-opens]");
  function show(which) {
    reasons.classList.toggle("is-open", which !== null);
    boxes.forEach(function (box) { box.disabled = which === null; });
    buttons.forEach(function (button) { button.setAttribute("aria-expanded", String(button.dataset.opens === which)); });
  }
  show(reasons.classList.contains("is-open") ? "fail" : null);
  buttons.forEach(function (button) {
    button.addEventListener("click", function () {
      if (button.getAttribute("aria-expanded") === "true") { show(null); return; }
      show(button.dataset.opens);
      reasons.querySelector("[data-sends=" + button.dataset.opens + "]").focus();
    });
  });
  reasons.addEventListener("keydown", function (event) {
    if (event.key !== "Escape") return;
    var opener = form.querySelector("[data-opens][aria-expanded=true]");
    show(null);
    if (opener) opener.focus();
  });
  var sends = reasons.querySelectorAll("[data-sends]");
  var meant = sends[0];
  sends.forEach(function (button) { button.addEventListener("focus", function () { meant = button; }); });
  boxes.forEach(function (box) {
    box.addEventListener("keydown", function (event) {
      if (event.key === "Enter") { event.preventDefault(); if (!event.repeat) meant.click(); }
    });
  });
  form.addEventListener("keydown", function (event) {
    if (event.key === "Escape" && event.target.matches("textarea")) event.target.blur();
  });

  // The clock: time in sight alone, and on from where it was if the same run is shown again.
  var clock = document.querySelector("[data-clock]");
  var key = "midwatch-reading";
  var kept = null;
  try { kept = JSON.parse(sessionStorage.getItem(key)); } catch (e) { /* it begins anew */ }
  var read = kept && kept.claim === clock.dataset.clock ? kept.seconds : 0;
  var since = document.hidden ? null : performance.now();
  function seconds() { return read + (since === null ? 0 : (performance.now() - since) / 1000); }
  function tell() {
    var whole = Math.floor(seconds());
    clock.textContent = Math.floor(whole / 60) + ":" + String(whole % 60).padStart(2, "0");
    try { sessionStorage.setItem(key, JSON.stringify({ claim: clock.dataset.clock, seconds: seconds() })); } catch (e) { /* not kept */ }
  }
  document.addEventListener("visibilitychange", function () {
    if (document.hidden) { read = seconds(); since = null; } else if (since === null) { since = performance.now(); }
  });

  // One press sends once; the verdict goes with the seconds.
  var sent = false;
  form.addEventListener("submit", function (event) {
    if (sent) { event.preventDefault(); return; }
    sent = true;
    form.elements.seconds.value = seconds().toFixed(1);
  });
  window.addEventListener("pageshow", function (event) { if (event.persisted) sent = false; });

  // Held for longer at half of what is left, while somebody looks; who has gone home holds nothing for ever.
  // Counted since the answer came, for the clock of this machine may be wrong; the first came as the page did.
  var MOST = 12;
  var extended = 0;
  var asked = null;
  function hold() {
    var element = document.getElementById("hold");
    if (!element || !element.dataset.seconds) return;
    if (asked === null || asked.element !== element) {
      asked = { element: element, since: asked === null ? 0 : performance.now(), left: element.dataset.seconds * 1000, sent: false };
    }
    if (document.hidden || extended >= MOST || asked.sent || performance.now() - asked.since < asked.left / 2) return;
    asked.sent = true;
    extended += 1;
    window.htmx.trigger(element, "extend");
  }
  setInterval(function () { tell(); hold(); }, 1000);
  tell();
})();
