// Before anything is drawn: the colours that the reader chose on this device.
(function () {
  "use strict";
  var kept = null;
  try { kept = localStorage.getItem("midwatch-theme"); } catch (e) { /* a browser that keeps nothing */ }
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
})();
