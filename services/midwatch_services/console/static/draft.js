// What is written of a run stays in this window while one looks on in the run, until the run is given away.
(function () {
  "use strict";
  var form = document.querySelector("form.judging");
  if (!form) return;
  var key = "midwatch-draft";
  var claim = form.elements.claim.value;
  var texts = form.querySelectorAll("textarea");
  var boxes = form.querySelectorAll("input[name=reason]");

  var kept = null;
  try { kept = JSON.parse(sessionStorage.getItem(key)); } catch (e) { /* nothing was kept */ }
  if (kept && kept.claim === claim) {
    texts.forEach(function (text) { if (!text.value) text.value = kept.texts[text.name] || ""; });
    boxes.forEach(function (box) { if (kept.reasons.indexOf(box.value) >= 0) box.checked = true; });
  }

  function keep() {
    var draft = { claim: claim, texts: {}, reasons: [] };
    texts.forEach(function (text) { draft.texts[text.name] = text.value; });
    boxes.forEach(function (box) { if (box.checked) draft.reasons.push(box.value); });
    try { sessionStorage.setItem(key, JSON.stringify(draft)); } catch (e) { /* for this page alone */ }
  }
  form.addEventListener("input", keep);
  form.addEventListener("change", keep);
  keep();
})();
