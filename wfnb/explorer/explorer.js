// What ipywidgets lacks: names and spoken values of slider handles, a live region, and a limit on uploads.
// A notebook server closes its connection on a message of 10 MB, so the browser must refuse a larger file.
// Runs once per page.
(() => {
  if (window.wfnbExplorer) return;
  window.wfnbExplorer = true;
  const set = (element, name, value) => {
    if (value && element.getAttribute(name) !== value) element.setAttribute(name, value);
  };
  const name = () => {
    for (const handle of document.querySelectorAll(".wfnb-explorer .noUi-handle")) {
      // the label reads "NAME: VALUE"
      const text = handle.closest(".widget-slider").querySelector(".widget-label")?.textContent ?? "";
      set(handle, "aria-label", text.split(": ")[0]);
      set(handle, "aria-valuetext", text.split(": ").slice(1).join(": "));
    }
    for (const numbers of document.querySelectorAll(".wfnb-explorer .wfnb-numbers")) {
      set(numbers, "aria-live", "polite");
    }
    for (const alerts of document.querySelectorAll(".wfnb-explorer .wfnb-alerts")) {
      set(alerts, "role", "alert");
    }
  };
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true, characterData: true });
  name();

  const open = HTMLInputElement.prototype.click;
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(".wfnb-explorer .widget-upload");
    if (!button) return;
    // the button clicks a file field outside the page: intercept that one click to check the file first
    HTMLInputElement.prototype.click = function () {
      HTMLInputElement.prototype.click = open;
      const refuse = (change) => {
        const file = this.files[0];
        if (!file || file.size <= LARGEST_MB * 1e6) return;
        change.stopImmediatePropagation();
        this.value = "";
        const note = button.closest(".wfnb-explorer").querySelector(".wfnb-upload-note .widget-html-content");
        const text = `The file has ${Math.round(file.size / 1e6)} MB: at most LARGEST_MB MB are allowed.`;
        note.innerHTML = `<div class="alert" role="alert">${text}</div>`;
      };
      this.addEventListener("change", refuse, { capture: true, once: true });
      open.call(this);
    };
    setTimeout(() => { HTMLInputElement.prototype.click = open; });
  }, true);
})();
