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
  // Counted since the answer came, for the clock of this machine may be wrong; the first came as the page did. By two
  // clocks, of which the later counts: one stands still while the machine sleeps, the other may be set back.
  var MOST = 12;
  var AGAIN = 10000;
  var extended = 0;
  var asked = null;
  function mark() { return { steady: performance.now(), day: Date.now() }; }
  function passed() { return Math.max(performance.now() - asked.since.steady, Date.now() - asked.since.day); }
  // It came to nothing: tried again at half of what is left, and now and then once nothing is.
  function missed() {
    asked.left = Math.max(0, asked.left - passed());
    asked.since = mark();
    asked.sent = false;
    extended -= 1;
  }
  function hold() {
    var element = document.getElementById("hold");
    if (!element || !element.dataset.over) return;
    if (asked === null) {
      var opened = { steady: 0, day: Date.now() - performance.now() };
      asked = { element: element, since: opened, left: (element.dataset.seconds || 0) * 1000, sent: false };
    } else if (asked.element !== element) {
      if (element.dataset.seconds) asked = { since: mark(), left: element.dataset.seconds * 1000, sent: false };
      else missed();
      asked.element = element;
    }
    var gone = passed();
    if (gone >= asked.left && element.textContent !== element.dataset.over) {
      element.setAttribute("role", "alert");
      element.textContent = element.dataset.over;
    }
    if (document.hidden || extended >= MOST || asked.sent || gone < (asked.left ? asked.left / 2 : AGAIN)) return;
    asked.sent = true;
    extended += 1;
    window.htmx.trigger(element, "extend");
  }
  ["htmx:timeout", "htmx:sendError", "htmx:responseError"].forEach(function (name) {
    document.body.addEventListener(name, function (event) {
      var status = event.detail.xhr.status;
      if (asked === null || event.detail.requestConfig.elt !== asked.element || !asked.sent) return;
      if (!status || status === 429 || status >= 500) missed();
    });
  });
  document.addEventListener("visibilitychange", hold);
  document.body.addEventListener("htmx:afterSwap", hold);
  setInterval(function () { tell(); hold(); }, 1000);
  tell();
  hold();
})();
