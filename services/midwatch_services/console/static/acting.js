// Pages that act: a large button takes no key that was held down before, and a verdict is said once.
(function () {
  "use strict";
  document.addEventListener("keydown", function (event) {
    if (event.repeat && (event.key === "Enter" || event.key === " ") && event.target.closest(".pressing")) event.preventDefault();
  });

  // What a screen reader says stands outside of the part that is brought anew, and changes only with the verdict.
  var said = document.querySelector("[data-says]");
  function say() {
    var now = said && document.querySelector(said.dataset.says + " [data-verdict]");
    if (now && said.textContent !== now.textContent) said.textContent = now.textContent;
  }
  document.body.addEventListener("htmx:afterSwap", say);
  say();
})();
