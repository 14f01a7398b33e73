// What pages share: times in the reader's zone, colours and keys.
(function () {
  "use strict";
  var root = document.documentElement;
  var dialog = document.getElementById("keys");

  function remembered(name) { try { return localStorage.getItem(name); } catch (e) { return null; } }
  function remember(name, value) { try { localStorage.setItem(name, value); } catch (e) { /* for this page alone */ } }

  // Times: <time datetime data-when> becomes "12 minutes ago, 14:03".
  var language = dialog.dataset.language;
  var relative = new Intl.RelativeTimeFormat(language, { numeric: "auto" });
  var clock = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  var dated = new Intl.DateTimeFormat(language, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  var yearly = new Intl.DateTimeFormat(language, { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  var full = new Intl.DateTimeFormat(language, { dateStyle: "full", timeStyle: "long" });
  var units = [["hour", 3600], ["minute", 60]];

  // Days are those of the calendar: what was on Tuesday is not "yesterday" on Thursday, however few hours ago.
  function dayOf(date) { return Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) / 86400000; }

  function inWords(at, now) {
    var seconds = (now - at) / 1000;
    var days = dayOf(at) - dayOf(now);
    if (Math.abs(seconds) >= 86400 && days) return relative.format(days, "day");
    for (var i = 0; i < units.length; i++) {
      if (Math.abs(seconds) >= units[i][1]) return relative.format(-Math.round(seconds / units[i][1]), units[i][0]);
    }
    return dialog.dataset.justNow;
  }

  function tellTimes(within) {
    within.querySelectorAll("time[data-when]").forEach(function (time) {
      var at = new Date(time.getAttribute("datetime"));
      var now = new Date();
      var day = at.toDateString() === now.toDateString() ? clock : at.getFullYear() === now.getFullYear() ? dated : yearly;
      time.textContent = Math.abs(now - at) < 7 * 86400000 ? inWords(at, now) + ", " + day.format(at) : day.format(at);
      time.title = full.format(at);
    });
  }

  // Colours: as on the device, light, dark.
  function showTheme() {
    var theme = root.dataset.theme || "auto";
    document.querySelectorAll("[data-theme-toggle]").forEach(function (button) { button.textContent = button.dataset[theme]; });
  }
  document.querySelectorAll("[data-theme-toggle]").forEach(function (button) {
    button.addEventListener("click", function () {
      var next = { auto: "light", light: "dark", dark: "auto" }[root.dataset.theme || "auto"];
      if (next === "auto") delete root.dataset.theme; else root.dataset.theme = next;
      remember("midwatch-theme", next);
      showTheme();
    });
  });

  // Keys: an element with data-key is clicked by that key, one with data-key-focus is focused; ? tells them all.
  var keysOn = dialog.querySelector("[data-keys-on]");
  keysOn.checked = remembered("midwatch-keys") !== "off";
  keysOn.addEventListener("change", function () { remember("midwatch-keys", keysOn.checked ? "on" : "off"); });

  function showKeys() {
    var list = dialog.querySelector("[data-keys]");
    list.querySelectorAll("[data-found]").forEach(function (row) { row.remove(); });
    document.querySelectorAll("[data-key]").forEach(function (element) {
      var row = document.createElement("div");
      row.dataset.found = "";
      var key = document.createElement("kbd");
      key.textContent = element.dataset.key;
      row.appendChild(document.createElement("dt")).appendChild(key);
      row.appendChild(document.createElement("dd")).textContent = element.dataset.keyLabel || element.textContent.trim();
      list.appendChild(row);
    });
    if (!dialog.open) dialog.showModal();
  }
  document.querySelectorAll("[data-keys-open]").forEach(function (button) {
    button.addEventListener("click", function () {
      var menu = button.closest("details");
      if (menu) menu.open = false;
      showKeys();
    });
  });
  // A key that is held down is pressed once: what comes up next has not been read yet.
  document.addEventListener("keydown", function (event) {
    if (event.repeat && event.key === "Enter" && !event.target.closest("textarea")) event.preventDefault();
  }, true);
  document.addEventListener("keydown", function (event) {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || dialog.open) return;
    if (event.target.closest("input:not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable]")) return;
    if (document.querySelector("dialog[open]")) return;
    if (!keysOn.checked) return;
    if (event.key === "?") { event.preventDefault(); showKeys(); return; }
    var found = Array.prototype.find.call(document.querySelectorAll("[data-key]"), function (element) {
      return element.dataset.key === event.key && !element.disabled;
    });
    if (!found) return;
    event.preventDefault();
    if (found.matches("input:not([type=checkbox]):not([type=radio]), textarea, select")) found.focus(); else found.click();
  });

  // On a narrow screen the pages scroll: the one that is open is to be seen.
  var current = document.querySelector(".nav [aria-current]");
  if (current) current.closest("ul").scrollLeft = current.offsetLeft - current.closest("ul").offsetLeft - 60;

  // The menu closes when something else is meant.
  document.addEventListener("click", function (event) {
    document.querySelectorAll("details.menu[open]").forEach(function (menu) {
      if (!menu.contains(event.target)) menu.open = false;
    });
  });
  document.addEventListener("keydown", function (event) {
    if (event.key !== "Escape") return;
    document.querySelectorAll("details.menu[open]").forEach(function (menu) {
      menu.open = false;
      menu.querySelector("summary").focus();
    });
  });

  // What htmx brings in is treated like what was there.
  document.body.addEventListener("htmx:afterSwap", function (event) { tellTimes(event.target); });

  tellTimes(document);
  showTheme();
  setInterval(function () { if (!document.hidden) tellTimes(document); }, 30000);
})();
