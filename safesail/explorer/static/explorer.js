// Theme, keys and tokens, for the server's pages and for reports. Everything works without it.
"use strict";

(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");

  // Reports opened from a disk may have no storage.
  function stored() {
    try { return localStorage.getItem("safesail-theme"); } catch { return null; }
  }
  function store(theme) {
    try { localStorage.setItem("safesail-theme", theme); } catch { /* for this page alone */ }
  }
  const kept = stored();
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;

  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
  }

  function prepareTheme() {
    const button = document.querySelector("button.theme");
    if (!button) return;
    const label = () => { button.textContent = isDark() ? "Light" : "Dark"; };
    button.hidden = false;
    label();
    dark.addEventListener("change", label);
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      store(root.dataset.theme);
      label();
      document.dispatchEvent(new Event("themechange"));
    });
  }

  function prepareCopy() {
    const button = document.querySelector("button.copy");
    if (!button || !navigator.clipboard) return;
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(location.href);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Not allowed";
      }
      setTimeout(() => { button.textContent = "Copy link"; }, 1500);
    });
  }

  // One token at a time can be reached by Tab; arrows go on from there.
  function prepareTokens() {
    const marks = [...document.querySelectorAll(".contexts mark")];
    const reading = document.querySelector(".reading");
    if (!marks.length || !reading) return;
    marks[0].tabIndex = 0;
    reading.textContent = "Arrow keys go from token to token.";
    document.addEventListener("focusin", (event) => {
      const mark = event.target.closest(".contexts mark");
      if (mark) reading.textContent = `“${mark.textContent}” activates it at ${mark.title}`;
    });
    document.addEventListener("click", (event) => {
      const mark = event.target.closest(".contexts mark");
      if (mark) goTo(mark);
    });
    document.addEventListener("keydown", (event) => {
      if (!["ArrowLeft", "ArrowRight"].includes(event.key) || busy(event)) return;
      const at = marks.indexOf(document.activeElement);
      const next = at < 0 ? 0 : at + (event.key === "ArrowRight" ? 1 : -1);
      if (!marks[next]) return;
      event.preventDefault();
      goTo(marks[next]);
    });
    function goTo(mark) {
      for (const other of marks) if (other.tabIndex === 0) other.tabIndex = -1;
      mark.tabIndex = 0;
      mark.focus();
    }
  }

  function busy(event) {
    return event.ctrlKey || event.metaKey || event.altKey
      || event.target.closest("input, textarea, select, canvas, .tokens");
  }

  // j and k: next and previous feature, or row of a list.
  function step(direction) {
    const link = document.querySelector(`.trail a[rel=${direction > 0 ? "next" : "prev"}]`);
    if (link) { link.click(); return; }
    const rows = [...document.querySelectorAll("table.list tbody th a, details.entry > summary")];
    if (!rows.length) return;
    const at = rows.indexOf(document.activeElement);
    rows[Math.min(rows.length - 1, Math.max(0, at + direction))].focus();
  }

  function prepareKeys() {
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && event.target.matches("input, textarea, select")) {
        event.target.blur();
        return;
      }
      if (busy(event)) return;
      if (event.key === "j") step(1);
      else if (event.key === "k") step(-1);
      else if (event.key === "/") {
        const field = document.querySelector(".search.big input, .search input, input[type=search]");
        if (!field) return;
        event.preventDefault();
        field.focus();
        field.select();
      }
    });
  }

  // A filter that is chosen applies at once; what is typed waits for Enter.
  function prepareFilters() {
    for (const select of document.querySelectorAll(".filters select")) {
      select.addEventListener("change", () => select.form.requestSubmit());
    }
    for (const form of document.querySelectorAll(".filters")) {
      form.addEventListener("formdata", (event) => {
        for (const [name, value] of [...event.formData]) if (!value) event.formData.delete(name);
      });
    }
    const author = document.querySelector(".correct [name=author]");
    if (author) {
      try { author.value = localStorage.getItem("safesail-author") || author.value; } catch { /* none kept */ }
      author.form.addEventListener("submit", () => {
        try { localStorage.setItem("safesail-author", author.value); } catch { /* not kept */ }
      });
    }
  }

  // In reports: entries that hold the words stay.
  function prepareNarrowing() {
    const field = document.querySelector("#narrow");
    if (!field) return;
    const entries = [...document.querySelectorAll("details.entry")];
    let texts = null;  // read when they are needed: they are most of the report
    const total = document.querySelector("#narrowed");
    field.closest("[hidden]")?.removeAttribute("hidden");
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      texts ??= entries.map((entry) => entry.textContent.toLowerCase());
      let left = 0;
      entries.forEach((entry, place) => {
        entry.hidden = !words.every((word) => texts[place].includes(word));
        left += entry.hidden ? 0 : 1;
      });
      total.textContent = words.length ? `${left} of ${entries.length}` : "";
    });
  }

  // A link to a closed entry opens it.
  function openTarget() {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.matches("details")) {
      target.open = true;
      target.scrollIntoView();
    }
  }

  addEventListener("DOMContentLoaded", () => {
    prepareTheme();
    prepareCopy();
    prepareTokens();
    prepareKeys();
    prepareFilters();
    prepareNarrowing();
    openTarget();
    addEventListener("hashchange", openTarget);
  });
})();
