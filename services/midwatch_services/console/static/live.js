// Parts that follow what happens: one stream a page, closed while nobody looks, for a browser opens only six to a host.
(function () {
  "use strict";
  var SILENT = 40000; // without a sign of life for so long the link is dead, though nothing says so
  var UNANSWERED = 10000;
  var SHIFTED = 500; // for so long a press on what has just come under the thumb is none
  var FIELD = "textarea, select, input:not([type=hidden]):not([type=checkbox]):not([type=radio])";
  var state = document.querySelector("[data-live-state]");
  var news = document.querySelector("[data-news]");
  var source = null;
  var was = "";
  var timers = {};

  function after(name, wait, work) { clearTimeout(timers[name]); timers[name] = setTimeout(work, wait); }
  // Apart from one another, for all pages lose a console at once.
  function again() { return 2000 + Math.random() * 8000; }
  function parts() { return Array.from(document.querySelectorAll("[data-live]")); }
  function topics(part) { return part.dataset.live.split(/\s+/).filter(Boolean); }
  function followed() { return Array.from(new Set(parts().flatMap(topics))).sort(); }

  function ask(name) {
    parts().forEach(function (part) {
      if (name === null || topics(part).indexOf(name) >= 0) window.htmx.trigger(part, "moved");
    });
  }
  // At once, and once more when it is calm: what a service keeps of an event stands in its database after the event.
  function moved(name) {
    ask(name);
    after("moved " + name, 1500, function () { ask(name); });
  }

  function say(what) {
    if (state.dataset.is === what) return;
    state.dataset.is = what;
    state.hidden = false;
    state.textContent = state.dataset[what];
    state.classList.toggle("is-off", what !== "on");
  }
  function stop() {
    if (source) source.close();
    source = null;
    clearTimeout(timers.silence);
    clearTimeout(timers.again);
  }
  function connect(missed) {
    stop();
    var opened = source = new EventSource("/live?" + followed().map(function (name) { return "on=" + encodeURIComponent(name); }).join("&"));
    function dead() { say("off"); connect(true); }
    function alive() { after("silence", SILENT, dead); }
    after("silence", UNANSWERED, dead);
    opened.addEventListener("ready", function () { alive(); say("on"); if (missed) moved(null); missed = true; });
    opened.addEventListener("lost", function () { alive(); say("lost"); missed = true; });
    opened.addEventListener("beat", alive);
    // Who is signed out is led to signing in by the part that asks.
    opened.addEventListener("over", function () { say("off"); stop(); ask(null); after("again", again(), function () { connect(true); }); });
    opened.addEventListener("moved", function (event) { alive(); moved(event.data); });
    opened.addEventListener("error", function () {
      say("off");
      // The browser itself gives up for ever on an answer that is no stream, such as a proxy's 502.
      if (opened.readyState === 2) after("again", again(), function () { ask(null); connect(true); });
    });
  }
  function listen(missed) {
    var names = document.hidden ? "" : followed().join();
    if (was === names) return;
    was = names;
    if (names) connect(missed); else stop();
  }
  document.addEventListener("visibilitychange", function () { listen(true); });
  window.addEventListener("pagehide", function () { stop(); was = ""; });
  window.addEventListener("pageshow", function (event) { if (event.persisted) listen(true); });

  // What somebody writes is not taken from under their hands: the part waits until it is left empty, or asked for.
  function isWritten(part) {
    return Array.from(part.querySelectorAll(FIELD)).some(function (field) {
      return field === document.activeElement || (field.defaultValue !== undefined && field.value !== field.defaultValue);
    });
  }
  function tell(text, withButton) {
    news.querySelector("[data-news-text]").textContent = text;
    news.querySelector("button").hidden = !withButton;
    news.hidden = false;
  }
  function show(chosen) {
    document.querySelectorAll("[data-held]").forEach(function (part) {
      if (!chosen && isWritten(part)) return;
      if (chosen) part.dataset.held = "shown";
      window.htmx.trigger(document.querySelector("[hx-target='#" + part.id + "'][data-live]") || part, "moved");
    });
  }
  news.querySelector("button").addEventListener("click", function () { show(true); });
  // Later than a press that took the focus away: the part must not change under it.
  document.addEventListener("focusout", function () { after("left", SHIFTED, function () { show(false); }); });

  function isLive(event) { return event.detail.target.matches("[data-live]") || event.detail.requestConfig.elt.matches("[data-live]"); }
  // Whatever one may press, by what it does and where it stands.
  function what(element) {
    var form = element.form ? element.form.getAttribute("action") : "";
    return [element.tagName, form, element.getAttribute("href"), element.name, element.value].join(" ");
  }
  function pressable() {
    return Array.from(document.querySelectorAll("main a[href], main button")).map(function (element) {
      var box = element.getBoundingClientRect();
      return { what: what(element), element: element, left: box.left + window.scrollX, top: box.top + window.scrollY };
    });
  }
  var before = null;
  var changes = [];
  function recent() { return changes.filter(function (one) { return performance.now() - one.at < SHIFTED; }); }

  document.body.addEventListener("htmx:beforeSwap", function (event) {
    if (!event.detail.shouldSwap || !isLive(event)) return;
    var part = event.detail.target;
    if (isWritten(part) && part.dataset.held !== "shown") {
      event.detail.shouldSwap = false;
      part.dataset.held = "";
      tell(news.dataset.waits, true);
      return;
    }
    var active = part.contains(document.activeElement) ? document.activeElement : null;
    before = {
      id: part.id, focus: active && what(active), shown: part.dataset.held === "shown", pressable: pressable(),
      scrolled: Array.from(part.querySelectorAll(".scroll")).map(function (one) { return one.scrollLeft; }),
      written: Array.from(part.querySelectorAll(FIELD)).filter(function (field) { return field.id; })
        .map(function (field) { return [field.id, field.value, field.defaultValue]; }),
    };
    delete part.dataset.held;
    if (!document.querySelector("[data-held]")) news.hidden = true;
  });
  // The place in the part is kept; the focus on a field htmx keeps itself, by its id.
  function keep(part) {
    before.written.forEach(function (one) {
      var field = document.getElementById(one[0]);
      if (field && one[1] !== one[2]) field.value = one[1];
    });
    part.querySelectorAll(".scroll").forEach(function (one, place) { one.scrollLeft = before.scrolled[place] || 0; });
    var focused = before.focus && document.activeElement === document.body &&
      Array.from(part.querySelectorAll("a[href], button")).find(function (one) { return what(one) === before.focus; });
    if (before.shown) part.tabIndex = -1;
    if (focused || before.shown) (focused || part).focus({ preventScroll: true });
  }
  document.body.addEventListener("htmx:afterSwap", function () {
    var part = before && document.getElementById(before.id);
    if (part) keep(part);
    if (before) changes = recent().concat({ at: performance.now(), pressable: before.pressable });
    before = null;
    listen(false);
  });
  document.addEventListener("click", function (event) {
    var latest = recent();
    var pressed = latest.length && pressable().find(function (one) { return one.element.contains(event.target); });
    if (!pressed || (!event.detail && pressed.element === document.activeElement)) return;
    var stood = latest.every(function (change) {
      return change.pressable.some(function (one) {
        return one.what === pressed.what && Math.abs(one.top - pressed.top) < 8 && Math.abs(one.left - pressed.left) < 8;
      });
    });
    if (stood) return;
    event.preventDefault();
    event.stopPropagation();
    tell(news.dataset.shifted, false);
    after("shifted", 6000, function () {
      if (document.querySelector("[data-held]")) tell(news.dataset.waits, true); else news.hidden = true;
    });
  }, true);

  // What asks again and again rests while nobody looks.
  document.body.addEventListener("htmx:beforeRequest", function (event) {
    if (document.hidden && event.detail.elt.matches("[hx-trigger^=every]")) event.preventDefault();
  });

  // A part that got no answer asks once more.
  ["htmx:timeout", "htmx:sendError", "htmx:responseError"].forEach(function (name) {
    document.body.addEventListener(name, function (event) {
      var part = event.detail.requestConfig.elt;
      var status = event.detail.xhr.status;
      if (status && status !== 429 && status < 500) return;
      if (part.matches("[data-live]") && !document.hidden) after("failed " + part.id, again(), function () { window.htmx.trigger(part, "moved"); });
    });
  });

  listen(false);
})();
